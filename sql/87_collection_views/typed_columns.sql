-- Take the types of a view's columns from the catalog.
--
-- Called by: sync.create_view().
create or replace function sync_priv.typed_columns(p_view text, p_columns jsonb)
  returns jsonb
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(c.item || jsonb_build_object(
           'type', format_type(a.atttypid, a.atttypmod)) order by c.place), '[]')
    from jsonb_array_elements(p_columns) with ordinality as c (item, place)
    join pg_catalog.pg_attribute a
      on a.attrelid = p_view::regclass and a.attname = c.item ->> 'name'
$$;
comment on function sync_priv.typed_columns(text, jsonb) is
  'p_columns of a view, each with its "type".';
