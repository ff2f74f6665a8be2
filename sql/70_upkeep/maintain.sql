-- One bounded step of upkeep: partitions of the log made ahead of need, closed and given up,
-- counters folded, fetches of a service that is gone put back in line, a chunk of a purge.
--
-- A partition is made under the log's lock, else a writer that needs the same one right now would
-- fail at its COMMIT; and as a step of its own, so that writers wait for nothing but that.
--
-- Called by: the service, in a transaction of its own, again at once while it returns true.
-- Locks: advisory (7261, 3), skipped when taken; (7261, 1) to make or close a partition.
create or replace function sync.maintain()
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_size  bigint := sync_priv.partition_size();
  v_last  bigint;
  v_ahead bigint;
begin
  if not pg_try_advisory_xact_lock(7261, 3) then
    return false;
  end if;
  select s.last_value, s.last_value + v_size / 2 into v_last, v_ahead from sync_priv.change_ids s;
  if to_regclass('sync_priv.changes_' || v_last / v_size) is null
     or to_regclass('sync_priv.changes_' || v_ahead / v_size) is null then
    perform pg_advisory_xact_lock(7261, 1);
    perform sync_priv.make_partitions(v_last, v_ahead);
    return true;
  end if;
  if sync_priv.close_partition() or sync_priv.retire_log() then
    return true;
  end if;
  perform sync_priv.fold_problems();
  perform sync_priv.purge_untracked();
  perform sync_priv.recover_lost_fetches();
  return sync_priv.purge_chunk();
end
$$;
comment on function sync.maintain() is
  'Do one step of upkeep; true when there is more to do at once.';
