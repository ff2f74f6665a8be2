-- Say why a source cannot be read right now, for whoever looks.
--
-- Called by: services, when that changes.
create or replace function sync.note_trouble(p_source_id int, p_trouble text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.sources s set trouble = left(p_trouble, 300)
   where s.source_id = p_source_id and s.trouble is distinct from left(p_trouble, 300)
$$;
comment on function sync.note_trouble(int, text) is
  'Say why a source cannot be read right now; null when it can.';
