-- The gaps that wait for a comparison.
--
-- Called by: the service.
create or replace function sync.open_gaps()
  returns table (source_id int, gap_since timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.source_id, s.gap_since from sync.sources s where s.gap_since is not null
$$;
comment on function sync.open_gaps() is 'Sources that lost events, and since when.';
