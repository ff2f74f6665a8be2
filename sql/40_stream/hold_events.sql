-- Keep what has to wait for a fetch, or for what another source tells; forget what was walked.
--
-- What is early is walked again with the next event of its repo, at the latest when its time is up;
-- at once where a status between them kept it apart from what it was waiting for.
--
-- The fetch may have ended in this very walk, with the account's status: then nothing waits for it
-- (AC-02). Kept, such an event would stay for as long as the account does not come back.
--
-- Called by: sync_priv.walk_events().
create or replace function sync_priv.hold_events()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.walk w set outcome = 'dropped'
    from sync.repos r
   where w.outcome = 'held' and r.repo_id = w.repo_id
     and (r.sync_state <> 'fetching' or not r.is_active);
  perform sync_priv.forget_held(
    array_agg(w.event_key) filter (where w.outcome not in ('held', 'early')),
    array_agg(w.event_key) filter (where w.outcome = 'held'),
    array_agg(w.event_key) filter (where w.outcome = 'early'))
    from pg_temp.walk w
   where not w.is_staged
  having count(*) > 0;
  insert into sync_priv.held_events
    (repo_id, is_due, due_at, source_id, kind, rev, since, prev_data, data_cid, commit_block, ops,
     reason)
  select w.repo_id, false,
         case w.outcome when 'early' then sync_priv.clock() + sync_priv.patience() end,
         w.source_id, s.kind, s.rev, s.since, s.prev_data, s.data_cid, s.commit_block, s.ops,
         s.reason
    from pg_temp.walk w
    join pg_temp.stage_events s on s.event_no = w.event_key
   where w.is_staged and w.outcome in ('held', 'early')
   order by s.event_no;
  perform sync_priv.hasten_held(array_agg(distinct w.repo_id))
     from pg_temp.walk w
    where w.outcome = 'early'
      and exists (select from pg_temp.walk l
                   where l.repo_id = w.repo_id and l.run > w.run and l.outcome = 'applied')
   having count(*) > 0;
  perform sync_priv.bound_held(array(
    select distinct k.repo_id from pg_temp.walk k where k.outcome in ('held', 'early')));
end
$$;
comment on function sync_priv.hold_events() is
  'Write the events of pg_temp.walk that wait to sync_priv.held_events.';
