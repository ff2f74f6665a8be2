-- Has this index been built?
--
-- Called by: sync.list_views(), sync.index_steps().
create or replace function sync_priv.is_index_ready(p_name text)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_catalog.pg_index i
                  where i.indexrelid = to_regclass(format('sync.%I', p_name)) and i.indisvalid)
$$;
comment on function sync_priv.is_index_ready(text) is 'True when the index exists and is valid.';
