-- What the planner has to know about indexed columns. It makes no use of the statistics of partial
-- indexes: without others it would expect a third of all records behind `created_at > …`.
--
-- Called by: sync.index_steps().
create or replace view sync_priv.wanted_statistics as
select distinct n.statistics_name,
       format('create statistics sync.%I on (%s) from sync.stored_records',
              n.statistics_name, c.item ->> 'expression') as statement
  from sync.collection_views w
 cross join lateral jsonb_array_elements(w.columns) as c (item)
 cross join lateral (
   select 'records_' || left(md5(c.item ->> 'expression'), 16) as statistics_name) n
 where c.item ->> 'name' = any (w.indexed);
comment on view sync_priv.wanted_statistics is
  'What CREATE STATISTICS has to make, one for each expression that an index is on.';
