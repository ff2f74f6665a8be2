-- One bounded step of upkeep: partitions ahead of need, counters folded, a chunk of a purge.
--
-- Called by: the service, again at once while it returns true.
create or replace function sync.maintain()
  returns boolean
  language plpgsql
  security definer
  set search_path = ''
as $$
declare
  v_last bigint;
begin
  if pg_try_advisory_xact_lock(7261, 3) then
    select s.last_value into v_last from sync_priv.change_ids s;
    perform sync_priv.make_partitions(v_last, v_last + sync_priv.partition_size() / 2);
    perform sync_priv.fold_problems();
    return sync_priv.purge_chunk();
  end if;
  return false;
end
$$;
comment on function sync.maintain() is
  'Do one step of upkeep; true when there is more to do at once.';
