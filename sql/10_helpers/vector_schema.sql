-- The schema in which this database has pgvector 0.8 or newer, the first that goes on looking
-- when hits are hidden; null without.
--
-- Called by: whatever names the type or an operator of the extension.
create or replace function sync_priv.vector_schema()
  returns name
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select n.nspname
    from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace
   where e.extname = 'vector'
     and string_to_array(substring(e.extversion from '^\d+\.\d+'), '.')::int[] >= '{0,8}'
$$;
comment on function sync_priv.vector_schema() is 'The schema of pgvector 0.8 or newer, or null.';
