-- Remember that a source lost events for us: the server's window is over, or our cursor is.
--
-- Called by: the service, on OutdatedCursor. Idempotent until the gap is closed.
create or replace function sync.note_gap(p_source_id int)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.sources s set gap_since = sync_priv.clock() where s.source_id = p_source_id
$$;
comment on function sync.note_gap(int) is
  'Events of this source were lost: every tracked repo has to be compared with its PDS (CU-09).';
