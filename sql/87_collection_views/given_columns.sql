-- The columns of a view that were given to it as expressions.
--
-- Called by: sync.create_view().
create or replace function sync_priv.given_columns(p_columns jsonb)
  returns jsonb
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(c ->> 'name', c -> 'expression'), '{}')
    from jsonb_array_elements(p_columns) as u (c)
   where c ->> 'property' is null
$$;
comment on function sync_priv.given_columns(jsonb) is
  'As p_columns of sync.create_view(), of sync.collection_views.columns.';
