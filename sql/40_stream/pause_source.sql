-- Stop reading a source; its cursor stays. sync.add_source() starts it again.
--
-- Called by: operators.
create or replace function sync.pause_source(p_url text)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync.sources s set is_enabled = false where s.url = p_url and s.is_enabled;
  return found;
end
$$;
comment on function sync.pause_source(text) is 'Stop reading the source at p_url; true if it was read.';
