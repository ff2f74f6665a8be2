-- The views of collections: their columns, and how their indexes stand.
--
-- Called by: whoever may read; `standpipe view list`.
create or replace function sync.list_views()
  returns table (view text, collection text, columns text[], indexes_ready int, indexes_wanted int,
                 is_missing boolean, changed_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', w.view_schema, w.view_name), k.nsid,
         array(select format('%s %s', c.item ->> 'name', c.item ->> 'type')
                 from jsonb_array_elements(w.columns) with ordinality as c (item, place)
                order by c.place),
         i.ready, i.wanted,
         to_regclass(format('%I.%I', w.view_schema, w.view_name)) is null,
         w.changed_at
    from sync.collection_views w
    join sync.collections k using (collection_id)
   cross join lateral (
     select count(*)::int as wanted,
            count(*) filter (where sync_priv.is_index_ready(x.index_name))::int as ready
       from sync_priv.wanted_indexes x
      where x.collection_id = w.collection_id
        and (x.view_column is null or x.view_column = any (w.indexed))) i
   order by 1
$$;
comment on function sync.list_views() is
  'The views that sync.create_view() made, each with its columns and how many indexes are ready.';
