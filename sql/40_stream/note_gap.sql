-- Remember that a source lost events for us: the server's window is over, or our cursor is.
--
-- An export that was asked for before now may lack what was lost, and its repo would count as
-- current when it is done. So every fetch that runs is given up, and starts over behind the gap;
-- every repo fetched before has to be compared.
--
-- Called by: the service, on OutdatedCursor or without a cursor, once it is connected again.
-- Locks: see sync_priv.recover_lost_fetches().
create or replace function sync.note_gap(p_source_id int)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync.sources s set gap_since = sync_priv.clock() where s.source_id = p_source_id;
  perform sync.recover_fetches();
end
$$;
comment on function sync.note_gap(int) is
  'Events of this source were lost: every tracked repo has to be compared with its PDS (CU-09).';
