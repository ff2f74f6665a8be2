-- Leave the partition that is written now when it holds enough: a quiet log would fill it in
-- years, and only what is closed can be retired. Enough is a quarter of the time or size that is
-- kept, so that four or five partitions hold it.
--
-- Called by: sync.maintain().
-- Locks: advisory (7261, 1), the log's lock, when there is something to do.
create or replace function sync_priv.close_partition()
  returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_size   bigint := sync_priv.partition_size();
  v_part   bigint := (select s.last_value / v_size from sync_priv.change_ids s);
  v_log    sync_priv.log_state := (select l from sync_priv.log_state l);
  v_oldest timestamptz;
begin
  select c.logged_at into v_oldest
    from sync.changes c
   where c.change_id >= v_part * v_size
   order by c.change_id
   limit 1;
  if v_oldest is null
     or (v_oldest > sync_priv.clock()
           - greatest(least(v_log.keep_age, v_log.max_age) / 4, interval '1 hour')
         and coalesce(pg_total_relation_size(to_regclass('sync_priv.changes_' || v_part))
                      <= v_log.max_bytes / 4, true)) then
    return false;
  end if;
  perform pg_advisory_xact_lock(7261, 1);
  -- Nobody else closes partitions (sync.maintain() runs once at a time); a commit or a new epoch
  -- may have left it just before we got the lock.
  if v_part = (select s.last_value / v_size from sync_priv.change_ids s) then
    perform sync_priv.leave_partition();
  end if;
  return true;
end
$$;
comment on function sync_priv.close_partition() is
  'Leave the partition of the log that is written when it is old or large enough; true if it was.';
