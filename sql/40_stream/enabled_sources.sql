-- The sources to read.
--
-- Called by: the service.
create or replace function sync.enabled_sources()
  returns table (source_id int, url text, kind text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.source_id, s.url, s.kind from sync.sources s where s.is_enabled order by s.source_id
$$;
comment on function sync.enabled_sources() is 'The sources that are read, in the order they were added.';
