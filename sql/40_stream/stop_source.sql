-- Stop a source that cannot go on by itself, and say why (FutureCursor: D-14). Its server lost its
-- history: what it had behind our cursor is in no stream any more, so every repo is compared.
--
-- Called by: the service.
create or replace function sync.stop_source(p_source_id int, p_error text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync.sources s set is_enabled = false, error = p_error where s.source_id = p_source_id;
  perform sync.note_gap(p_source_id);
end
$$;
comment on function sync.stop_source(int, text) is
  'Stop a source with an error that an operator has to look at.';
