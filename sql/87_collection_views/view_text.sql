-- What comes after CREATE for a view of a collection.
--
-- The conditions are those of sync.records, the collection being a constant.
--
-- A query that repeats the order of a view has the view planned as if all of it were read, and for
-- all of a large collection a sort seems cheaper than the index. So each row carries, to the sort
-- alone, a null of a type that is expected to be 100 kB wide: then a few rows are still sorted,
-- and many are read in order. Workers would share in the index for all of it, and be ready later
-- than a page is.
--
-- Called by: sync_priv.define_view().
create or replace function sync_priv.view_text(
    p_view text, p_collection_id int, p_columns jsonb, p_newest_by text)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select format(
    $view$view %1$s with (security_barrier) as
    select v.did, s.rkey,
           ('at://' || v.did || %2$L || s.rkey) collate "C" as uri,
           sync_priv.cid_text(s.cid) collate "C" as cid,
           s.indexed_at%3$s
      from sync.stored_records s
      join sync_priv.visible_repos v on v.repo_id = s.repo_id
     where s.collection_id = %4$s
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = 0 and coalesce(p.collection_id, 0) = %4$s)
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = s.repo_id
                          and coalesce(p.collection_id, 0) = %4$s)%5$s$view$,
    p_view, '/' || k.nsid || '/',
    (select string_agg(format(E',\n           (%s\n           ) as %I',
                              c.item ->> 'expression', c.item ->> 'name'), '' order by c.place)
       from jsonb_array_elements(p_columns) with ordinality as c (item, place)),
    p_collection_id,
    E'\n       and sync_priv.without_workers()\n     order by ' || case p_newest_by
      when 'indexed_at' then 's.indexed_at'
      else (select format('(%s)', c.item ->> 'expression')
              from jsonb_array_elements(p_columns) as c (item)
             where c.item ->> 'name' = p_newest_by) end || ' desc, null::char(25000)')
    from sync.collections k
   where k.collection_id = p_collection_id
$$;
comment on function sync_priv.view_text(text, int, jsonb, text) is
  'The definition of p_view (quoted), without CREATE.';
