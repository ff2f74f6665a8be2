-- Forget a source and its cursor.
--
-- Called by: operators.
create or replace function sync.remove_source(p_url text)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from sync.sources s where s.url = p_url;
  return found;
end
$$;
comment on function sync.remove_source(text) is 'Forget the source at p_url; true if there was one.';
