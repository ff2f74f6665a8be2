-- Apply one batch of a lane: everything staged in pg_temp.stage_events, and the cursor with it.
--
-- A repo that somebody else has locked is never waited for (one big reconcile must not stop a
-- lane): its events are held, marked due, and walked by the next call that gets the lock, the
-- next batch or an idle tick (the same call with an empty stage). Held events of a repo go
-- before staged ones, so none is overtaken.
-- Idempotent: a replayed event has a rev that is not newer, and is ignored.
--
-- Called by: a lane, in one transaction with its COPY.
-- Locks: the lane's cursor, then the repos (no key update, skip locked) in repo_id order.
-- Raises: SY101 when another process took the lane over; SY102 without a stage.
create or replace function sync.apply_events(
    p_source_id int, p_lane int, p_token bigint, p_cursor bigint, p_filter_generation bigint)
  returns table (outcome text, events bigint)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_wanted bigint[];
  v_locked bigint[];
begin
  perform sync_priv.require_stage();
  if not sync_priv.move_cursor(p_source_id, p_lane, p_token, p_cursor, p_filter_generation) then
    raise exception 'lane % of source % belongs to another process now', p_lane, p_source_id
      using errcode = 'SY101';
  end if;
  v_wanted := array(
    select r.repo_id
      from sync.repos r
     where r.did in (select s.did from pg_temp.stage_events s)
    union
    select d.repo_id from sync_priv.due_repos(500) d (repo_id));
  v_locked := array(
    select r.repo_id
      from sync.repos r
     where r.repo_id = any (v_wanted) and r.tracked_by = 'did'
     order by r.repo_id
       for no key update skip locked);
  insert into sync_priv.held_events
    (repo_id, is_due, source_id, kind, rev, since, prev_data, data_cid, commit_block, ops,
     is_active, status, reason)
  select r.repo_id, true, p_source_id, s.kind, s.rev, s.since, s.prev_data, s.data_cid,
         s.commit_block, s.ops, s.is_active, s.status, s.reason
    from pg_temp.stage_events s
    join sync.repos r using (did)
   where r.tracked_by = 'did' and r.repo_id <> all (v_locked)
   order by s.event_no;
  if found then
    perform sync_priv.bound_held(array(
      select r.repo_id from sync.repos r
       where r.repo_id = any (v_wanted) and r.repo_id <> all (v_locked)));
  end if;
  return query
    select w.outcome, w.events from sync_priv.walk_events(v_locked, p_source_id) w
    union all
    select case when r.repo_id is null then 'untracked' else 'held' end, count(*)
      from pg_temp.stage_events s
      left join sync.repos r on r.did = s.did and r.tracked_by = 'did'
     where r.repo_id is null or r.repo_id <> all (v_locked)
     group by 1;
end
$$;
comment on function sync.apply_events(int, int, bigint, bigint, bigint) is
  'Apply the staged events of a lane and move its cursor to p_cursor (null: leave it). Returns how
many events were applied, stale, held, early, dropped, broken, status or untracked. Raises SY101, SY102.';
