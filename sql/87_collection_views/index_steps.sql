-- What is to be done so that views and searches have the indexes they ask for, those of views with
-- statistics, and the records no others of theirs. Most of it cannot run in a function, or in any
-- transaction, and all waits for an index that is being built: so the service issues it.
--
-- An index that was broken off is invalid, and made anew. Whoever builds holds advisory (7261, 5).
--
-- Called by: the service, as the owner.
create or replace function sync.index_steps()
  returns table (index_name text, statement text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  with present as (
    select c.relname::text as index_name, i.indisvalid
      from pg_catalog.pg_index i
      join pg_catalog.pg_class c on c.oid = i.indexrelid
     where i.indrelid = 'sync.stored_records'::regclass
       and c.relname ~ '^records_(newest_[0-9]+|[0-9]+_[0-9a-f]{16})$'
  ),
  known as (
    select e.stxname::text as statistics_name
      from pg_catalog.pg_statistic_ext e
     where e.stxrelid = 'sync.stored_records'::regclass
       and e.stxname ~ '^records_[0-9a-f]{16}$'
  )
  select p.index_name, format('drop index concurrently sync.%I', p.index_name)
    from present p
   where not p.indisvalid
      or not exists (select from sync_priv.wanted_indexes w where w.index_name = p.index_name)
   union all
  select k.statistics_name, format('drop statistics sync.%I', k.statistics_name)
    from known k
   where not exists (select from sync_priv.wanted_statistics w
                      where w.statistics_name = k.statistics_name)
   union all
  select w.statistics_name, w.statement
    from sync_priv.wanted_statistics w
   where not exists (select from known k where k.statistics_name = w.statistics_name)
   union all
  select distinct w.index_name, w.statement
    from sync_priv.wanted_indexes w
   where not exists (select from present p where p.index_name = w.index_name)
   union all
  select s.index_name, case when s.is_there
                            then format('drop index concurrently sync_search.%I', s.index_name)
                            else s.statement end
    from sync_priv.search_indexes s
   where not s.is_valid
$$;
comment on function sync.index_steps() is
  'The statements, one an index or its statistics, that make and drop what views and searches ask
for.';
