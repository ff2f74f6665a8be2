-- The indexes that the views ask for, by names that tell what they are.
--
-- Called by: sync.index_steps(), sync.view_status.
create or replace view sync_priv.wanted_indexes as
select w.collection_id,
       'records_newest_' || w.collection_id as index_name,
       format('create index concurrently %I on sync.stored_records (indexed_at desc) '
              'where collection_id = %s', 'records_newest_' || w.collection_id, w.collection_id)
         as statement,
       null as view_column
  from sync.collection_views w
 group by w.collection_id
union
select w.collection_id,
       n.index_name,
       format('create index concurrently %I on sync.stored_records using ', n.index_name)
         || format(sync_priv.index_method(c.item ->> 'type'),
                   '(' || (c.item ->> 'expression') || ')')
         || format(' where collection_id = %s', w.collection_id),
       c.item ->> 'name'
  from sync.collection_views w
 cross join lateral jsonb_array_elements(w.columns) as c (item)
 cross join lateral (select format('records_%s_%s', w.collection_id,
                                   left(md5(c.item ->> 'expression'), 16)) as index_name) n
 where c.item ->> 'name' = any (w.indexed);
comment on view sync_priv.wanted_indexes is 'What CREATE INDEX CONCURRENTLY has to make.';
