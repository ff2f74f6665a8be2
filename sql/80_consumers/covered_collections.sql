-- The collections that all the given pattern lists cover, or null for "every one": a filter that
-- is null costs nothing.
--
-- Called by: sync.read_changes(), sync.replay().
create or replace function sync_priv.covered_collections(
  p_patterns text[],
  p_more     text[] default null)
  returns int[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case when p_patterns is not null or p_more is not null then array(
    select c.collection_id
      from sync.collections c
     where sync_priv.covers_nsid(p_patterns, c.nsid) and sync_priv.covers_nsid(p_more, c.nsid)
     order by c.collection_id) end
$$;
comment on function sync_priv.covered_collections(text[], text[]) is
  'Ids of the collections covered by both pattern lists; null when both are null.';
