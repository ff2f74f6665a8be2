-- Is there an index that lists a collection's records newest first?
--
-- Called by: sync.list_records().
create or replace function sync_priv.has_newest_index(p_collection_id int)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_catalog.pg_index i
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
     where i.indrelid = 'sync.stored_records'::regclass
       and i.indisvalid
       and a.attname = 'indexed_at'
       and pg_get_expr(i.indpred, i.indrelid) = format('(collection_id = %s)', p_collection_id))
$$;
comment on function sync_priv.has_newest_index(int) is
  'True when a partial index on (indexed_at) serves this collection.';
