-- Give up the oldest closed partition of the log when nobody needs it any more: it is older than
-- what is kept and every consumer has passed it; or it is beyond the hard limits of age or size.
--
-- The floor moves first, and with it the mark on every shard that is overtaken: a reader with an
-- old snapshot fails on its lock, where the row is newer than the snapshot, instead of finding a
-- hole. A shard that is locked is being read from: nothing is retired under it, nor is it waited
-- for. The floor is the last change that went, not the end of its partition, so that whoever has
-- read it stays where he is. What the floor has left behind, the service detaches and drops
-- (sync.retired_partitions()).
--
-- Called by: sync.maintain().
-- Locks: the overtaken shards, skip locked; the log's state.
create or replace function sync_priv.retire_log()
  returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_log       sync_priv.log_state := (select l from sync_priv.log_state l);
  v_last      bigint;
  v_newest    timestamptz;
  v_bytes     bigint;
  v_overtaken bigint;
  v_locked    bigint;
begin
  select p.last_id, p.newest_at, p.total_bytes into v_last, v_newest, v_bytes
    from sync_priv.log_partitions p
   where p.state = 'closed'
   order by p.part
   limit 1;
  if not found then
    return false;
  end if;
  select count(*) into v_overtaken
    from sync_priv.consumer_shards s where s.position < v_last and not s.is_lost;
  if not (v_newest < sync_priv.clock() - v_log.keep_age and v_overtaken = 0
          or coalesce(v_newest < sync_priv.clock() - v_log.max_age, false)
          or coalesce(v_bytes > v_log.max_bytes, false)) then
    return false;
  end if;
  select count(*) into v_locked
    from (select from sync_priv.consumer_shards s
           where s.position < v_last and not s.is_lost
           order by s.consumer_id, s.shard
             for update skip locked) s;
  if v_locked < v_overtaken then
    return false;
  end if;
  update sync_priv.log_state set log_floor = v_last;
  update sync_priv.consumer_shards s set is_lost = true where s.position < v_last and not s.is_lost;
  delete from sync_priv.log_gaps g where g.next_id <= v_last;
  return true;
end
$$;
comment on function sync_priv.retire_log() is
  'Move the floor of the log past its oldest closed partition, if the policy says so; true if it was.';
