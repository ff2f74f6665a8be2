-- The views of collections: their columns, and how their indexes stand.
--
-- Called by: whoever may read; `standpipe view`.
create or replace function sync.list_views()
  returns table (view text, collection text, is_tracked boolean, columns text[], newest_by text,
                 indexes_ready text[], indexes_missing text[], lexicon_did text,
                 is_missing boolean, changed_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', w.view_schema, w.view_name), k.nsid, sync_priv.is_tracked_nsid(k.nsid),
         array(select format('%s %s', c.item ->> 'name', c.item ->> 'type')
                 from jsonb_array_elements(w.columns) with ordinality as c (item, place)
                order by c.place),
         w.newest_by, i.ready, i.missing, l.did,
         not sync_priv.is_our_view(w.view_schema, w.view_name), w.changed_at
    from sync.collection_views w
    join sync.collections k using (collection_id)
    left join sync.lexicons l
      on l.nsid = k.nsid and w.has_lexicon
   cross join lateral (
     select coalesce(array_agg(x.view_column order by x.view_column)
                     filter (where sync_priv.is_index_ready(x.index_name)), '{}') as ready,
            coalesce(array_agg(x.view_column order by x.view_column)
                     filter (where not sync_priv.is_index_ready(x.index_name)), '{}') as missing
       from sync_priv.wanted_indexes x
      where (x.view_schema, x.view_name) = (w.view_schema, w.view_name)) i
   order by 1
$$;
comment on function sync.list_views() is
  'The views that sync.create_view() made: columns, which have an index and which wait for one, and
the repo where the lexicon was found.';
