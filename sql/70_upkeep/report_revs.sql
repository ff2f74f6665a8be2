-- Compare what PDSes say with what is stored, after a gap: a repo with a newer rev is fetched,
-- an account whose status was missed gets it. A lower rev is no news: real servers report stale
-- ones. The word is unsigned, so it never raises seen_rev. It may also be older than what the
-- stream has told meanwhile, where that was no change then: so who is changed here is asked again,
-- until the answer is no news.
-- Idempotent. Who locks a repo may be a lane that knows nothing of what was missed, and a fetch
-- that began before the gap may bring an export without it: so the caller is told (null), and
-- reports again.
--
-- Called by: gap repair.
-- Locks: the repos (no key update, skip locked) in repo_id order.
create or replace function sync.report_revs(
    p_dids text[], p_revs text[], p_are_active boolean[], p_statuses text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
  v_changed bigint[];
  v_behind bigint;
  v_count  bigint;
begin
  v_locked := array(select r.repo_id from sync.repos r
                     where r.did = any (p_dids) and r.tracked_by = 'did'
                     order by r.repo_id for no key update skip locked);
  select count(*) into v_behind
    from sync.repos r
    join unnest(p_dids, p_are_active) as u (did, is_active) using (did)
   where r.repo_id = any (v_locked) and r.sync_state = 'synchronized'
     and u.is_active and not r.is_active;
  with changed as (
    update sync.repos r
       set is_active = u.is_active,
           account_status = case when u.is_active then null else u.status end,
           sync_state = case when u.is_active and r.sync_state = 'synchronized'
                             then 'desynchronized' else r.sync_state end,
           next_fetch_at = sync_priv.clock()
      from unnest(p_dids, p_are_active, p_statuses) as u (did, is_active, status)
     where r.repo_id = any (v_locked) and r.did = u.did and u.is_active is not null
       and (r.is_active <> u.is_active
            or not u.is_active and r.account_status is distinct from u.status)
       and r.sync_state <> 'fetching'
    returning r.repo_id
  )
  select array_agg(c.repo_id) into v_changed from changed c;
  perform sync_priv.open_checks(coalesce(v_changed, '{}'));
  update sync.repos r
     set sync_state = 'desynchronized', error = 'gap', next_fetch_at = sync_priv.clock()
    from unnest(p_dids, p_revs) as u (did, rev), sync.heads h
   where r.repo_id = any (v_locked) and r.did = u.did and h.repo_id = r.repo_id
     and r.sync_state = 'synchronized' and r.is_active and u.rev collate "C" > h.rev;
  get diagnostics v_count = row_count;
  v_count := v_count + v_behind;
  if v_count > 0 then
    perform pg_notify('sync_work', '');
  end if;
  if exists (select from sync.repos r
              where r.did = any (p_dids) and r.tracked_by = 'did'
                and (r.repo_id <> all (v_locked)
                     or r.sync_state = 'fetching'
                        and r.fetch_started_at < (select max(s.gap_since) from sync.sources s)))
  then
    return null;
  end if;
  return v_count;
end
$$;
comment on function sync.report_revs(text[], text[], boolean[], text[]) is
  'Revs and account statuses as their PDSes report them (parallel arrays, nulls for unknown); returns
how many repos turned out to be behind and wait for a fetch; null when one is locked right now, or
its fetch has to end first.';
