-- Open a new log epoch when this database is not the one that numbered last.
--
-- A restore, a point-in-time recovery or a failover forgets the latest change ids; readers
-- outside may have seen them. The epoch in every position tells the two histories apart, and
-- ids start in a fresh partition, so that none is used twice. Epochs follow the clock: the same
-- dump may be restored twice, and either copy has a history of its own.
--
-- Called by: sync_priv.number_changes(), sync_priv.notice_restore(), under the log's lock.
create or replace function sync_priv.open_epoch()
  returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_system   bigint := (select c.system_identifier from pg_catalog.pg_control_system() c);
  v_timeline text := left(pg_walfile_name(pg_current_wal_lsn()), 8);
  v_database oid := (select d.oid from pg_catalog.pg_database d
                      where d.datname = current_database());
  v_table    oid := 'sync_priv.log_state'::regclass;
  v_now      int := extract(epoch from sync_priv.clock() - timestamptz '2026-01-01 00:00Z');
begin
  update sync_priv.log_state l
     set log_epoch = greatest(l.log_epoch + 1, v_now),
         system_identifier = v_system,
         timeline = v_timeline,
         database_oid = v_database,
         table_oid = v_table
   where (l.system_identifier, l.timeline, l.database_oid, l.table_oid)
         is distinct from (v_system, v_timeline, v_database, v_table);
  if found then
    perform sync_priv.leave_partition();
    return true;
  end if;
  return false;
end
$$;
comment on function sync_priv.open_epoch() is
  'Begin a new log epoch after a restore, a recovery or a failover; true if there was one.';
