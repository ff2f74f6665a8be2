-- The indexes that the views ask for, by names that tell what they are: one that lists the
-- collection newest first, and one on each column that was named.
--
-- Called by: sync.index_steps(), sync.list_views().
create or replace view sync_priv.wanted_indexes as
with wanted as (
  select w.view_schema, w.view_name, w.collection_id,
         'indexed_at' as view_column,
         format('records_newest_%s', w.collection_id) as index_name,
         '(indexed_at desc)' as definition
    from sync.collection_views w
   union all
  select w.view_schema, w.view_name, w.collection_id,
         c.item ->> 'name',
         format('records_%s_%s', w.collection_id, left(md5(c.item ->> 'expression'), 16)),
         format('using %s ((%s))', sync_priv.index_method(c.item ->> 'type'),
                c.item ->> 'expression')
    from sync.collection_views w
   cross join lateral jsonb_array_elements(w.columns) as c (item)
   where c.item ->> 'name' = any (w.indexed)
)
select d.view_schema, d.view_name, d.view_column, d.index_name,
       format('create index concurrently %I on sync.stored_records %s where collection_id = %s',
              d.index_name, d.definition, d.collection_id) as statement
  from wanted d;
comment on view sync_priv.wanted_indexes is
  'What CREATE INDEX CONCURRENTLY has to make, a row for each view that asks for it.';
