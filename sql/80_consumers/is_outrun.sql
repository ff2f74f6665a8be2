-- Was the log retired past this shard's position?
--
-- Called by: sync_priv.refuse_outrun(), sync.replay().
create or replace function sync_priv.is_outrun(p_shard sync_priv.consumer_shards)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select p_shard.is_lost or p_shard.position < (select s.log_floor from sync_priv.log_state s)
$$;
comment on function sync_priv.is_outrun(sync_priv.consumer_shards) is
  'True when only sync.replay() helps this shard.';
