-- The collection patterns.
--
-- Called by: lanes and fetchers. A fetcher reads them after its claim: a pattern that comes
-- later begins a new generation of the repo, and the fetch is refused.
create or replace function sync.tracked_collections()
  returns table (pattern text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select f.pattern from sync.filters f where f.kind = 'collection' order by f.pattern
$$;
comment on function sync.tracked_collections() is 'The tracked collection patterns.';
