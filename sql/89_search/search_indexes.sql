-- The indexes that searches ask for: one on each table, for the nearest by the cosine.
--
-- Called by: sync.index_steps(), sync.list_searches().
create or replace view sync_priv.search_indexes as
select s.name,
       s.name || '__embedding' as index_name,
       format('create index concurrently %1$I on sync_search.%2$I using hnsw (%3$s)',
              s.name || '__embedding', s.name,
              case when s.dimensions <= 2000 then format('embedding %I.vector_cosine_ops', v.name)
                   else format('(embedding::%1$I.halfvec(%2$s)) %1$I.halfvec_cosine_ops',
                               v.name, s.dimensions) end) as statement,
       i.indexrelid is not null as is_there,
       coalesce(i.indisvalid, false) as is_valid
  from sync.searches s
 cross join lateral (select sync_priv.vector_schema() as name) v
  left join pg_catalog.pg_index i
    on i.indexrelid = to_regclass(format('sync_search.%I', s.name || '__embedding'))
 where v.name is not null and to_regclass(format('sync_search.%I', s.name)) is not null;
comment on view sync_priv.search_indexes is
  'What CREATE INDEX CONCURRENTLY has to make for searches, and whether it has.';
