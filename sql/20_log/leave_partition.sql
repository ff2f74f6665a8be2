-- Go on numbering in the next partition, and note which ids that skips.
--
-- Called by: sync_priv.open_epoch(), sync_priv.close_partition(), both under the log's lock.
create or replace function sync_priv.leave_partition()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_size  bigint := sync_priv.partition_size();
  v_last  bigint := (select s.last_value from sync_priv.change_ids s);
  v_start bigint := (v_last / v_size + 1) * v_size;
begin
  -- The partition first: the sequence does not come back when this transaction fails.
  perform sync_priv.make_partitions(v_start, v_start);
  insert into sync_priv.log_gaps (last_id, next_id) values (v_last, v_start + 1)
      on conflict (last_id) do update set next_id = excluded.next_id;
  perform setval('sync_priv.change_ids', v_start);
end
$$;
comment on function sync_priv.leave_partition() is
  'Let the next change id be the first of a new partition.';
