-- Apply one run of account and identity events; they do not wait for a fetch.
--
-- An identity event is a hint to look again (MT-07), at once unless hints come all the time, and
-- then within a minute (MT-08); one with a reason stands for a word on the account that could not
-- be stored, so that its PDS is asked. A rejected message is remembered until the identity changes
-- (D-03, A-21). Its status is the key and the PDS by which it was judged, with a space between:
-- where they are not the repo's any more, this has happened already and is made up for at once.
-- It also has the identity looked up, for the lane may not have been allowed to ask (SG-09): at
-- once, unless that was done a moment ago, and then within a minute.
--
-- Called by: sync_priv.walk_events().
-- Locks: the caller holds the repos' rows; rows of sync_priv.account_checks.
create or replace function sync_priv.walk_statuses(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant int := 20;
begin
  if not exists (select from pg_temp.walk w
                  where w.run = p_run and w.kind in ('account', 'identity', 'rejected')) then
    return;
  end if;
  perform sync_priv.walk_accounts(p_run);
  perform sync_priv.open_checks(array(
    select distinct w.repo_id from pg_temp.walk w
     where w.run = p_run and w.kind = 'identity' and w.reason is not null));
  with hinted as (
    insert into sync_priv.account_checks as c (repo_id, hints, hinted_at, has_second_look)
    select distinct w.repo_id, 1, sync_priv.clock(), true
      from pg_temp.walk w where w.run = p_run and w.kind = 'identity'
     order by w.repo_id
        on conflict (repo_id) do update
       set hints = sync_priv.leaked(c.hints, c.hinted_at, interval '6 seconds', v_most) + 1,
           hinted_at = excluded.hinted_at, has_second_look = true
    returning c.repo_id, c.hints
  )
  update sync.repos r
     set is_identity_stale = true,
         stale_since = sync_priv.clock(),
         identity_checked_at = case when h.hints <= v_most then null
                                    else r.identity_checked_at end
    from hinted h
   where r.repo_id = h.repo_id;
  update sync.repos r
     set rejected_at = case when not j.is_outdated then sync_priv.clock() end,
         is_identity_stale = true,
         stale_since = sync_priv.clock(),
         identity_checked_at = case
           -- In the future where lookups failed, to put the next one off: now it counts as made.
           when r.identity_checked_at > sync_priv.clock() - interval '6 seconds'
             then least(r.identity_checked_at, sync_priv.clock())
         end,
         sync_state = case
           when j.is_outdated and r.sync_state in ('synchronized', 'fetching')
             then 'desynchronized'
           else r.sync_state
         end,
         next_fetch_at = case when j.is_outdated then sync_priv.clock() else r.next_fetch_at end
    from (select w.repo_id,
                 coalesce(bool_or(w.status <> coalesce(k.signing_key, '') || ' '
                                              || coalesce(k.pds_url, '')), false) as is_outdated
            from pg_temp.walk w
            join sync.repos k using (repo_id)
           where w.run = p_run and w.kind = 'rejected'
           group by w.repo_id) j
   where r.repo_id = j.repo_id;
  update pg_temp.walk w set outcome = 'status'
   where w.run = p_run and w.kind in ('account', 'identity', 'rejected');
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync_priv.walk_statuses(bigint) is
  'Apply the account and identity events of one run of pg_temp.walk.';
