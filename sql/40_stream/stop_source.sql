-- Stop a source that cannot go on by itself, and say why (FutureCursor: D-14).
--
-- Called by: the service.
create or replace function sync.stop_source(p_source_id int, p_error text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.sources s set is_enabled = false, error = p_error where s.source_id = p_source_id
$$;
comment on function sync.stop_source(int, text) is
  'Stop a source with an error that an operator has to look at.';
