-- How many rows of a table, partitions included, this transaction has written so far.
--
-- Called by: sync.rebuild_projection().
create or replace function sync_priv.own_writes(p_table regclass)
  returns bigint
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(pg_stat_get_xact_tuples_inserted(t.relid)
                      + pg_stat_get_xact_tuples_updated(t.relid)
                      + pg_stat_get_xact_tuples_deleted(t.relid)), 0)::bigint
    from (select p_table as relid union select relid from pg_partition_tree(p_table)) t
$$;
comment on function sync_priv.own_writes(regclass) is
  'How many rows of p_table this transaction has written.';
