-- Remember that a source lost events for us: the server's window is over, or our cursor is.
--
-- An export that was asked for before now may lack what was lost. So every repo whose fetch began
-- before has to be compared, also when it ends later: sync.report_revs() waits for it. No fetch is
-- given up for it: a server that says all the time that our cursor is too old would let none end.
-- Only those start over that are looking for their PDS, for there is nobody to compare them with.
--
-- Called by: the service, on OutdatedCursor or without a cursor, once it is connected again.
-- Locks: the source; the repos whose PDS is unknown, skip locked, in repo_id order.
create or replace function sync.note_gap(p_source_id int)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  update sync.sources s set gap_since = sync_priv.clock() where s.source_id = p_source_id;
  v_ids := array(
    select r.repo_id
      from sync.repos r
     where r.sync_state = 'fetching' and r.host_id = 0 and r.tracked_by = 'did'
     order by r.repo_id
       for no key update skip locked);
  update sync.repos r
     set sync_state = 'desynchronized', next_fetch_at = sync_priv.clock()
   where r.repo_id = any (v_ids);
  perform sync_priv.hasten_held(v_ids);
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync.note_gap(int) is
  'Events of this source were lost: every tracked repo has to be compared with its PDS (CU-09).';
