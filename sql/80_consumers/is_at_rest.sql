-- Has a shard delivered everything there is: at the end of the log, walk over, nothing pending?
--
-- Called by: sync_priv.read_shard().
create or replace function sync_priv.is_at_rest(p_shard sync_priv.consumer_shards)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select p_shard.frontier is null
     and p_shard.position >= sync_priv.log_head()
     and not sync_priv.has_pending(p_shard)
$$;
comment on function sync_priv.is_at_rest(sync_priv.consumer_shards) is
  'True when a shard has delivered everything there is.';
