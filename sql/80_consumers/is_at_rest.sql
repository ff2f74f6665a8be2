-- Has a shard delivered everything there is: at the end of the log, walk over, nothing pending?
--
-- Called by: sync.read_changes().
create or replace function sync_priv.is_at_rest(p_shard sync_priv.consumer_shards)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from sync_priv.consumer_shards s
     where (s.consumer_id, s.shard) = (p_shard.consumer_id, p_shard.shard)
       and s.frontier is null
       and s.position >= sync_priv.log_head()
       and not exists (select from sync_priv.consumer_pending p
                        where (p.consumer_id, p.shard) = (s.consumer_id, s.shard)))
$$;
comment on function sync_priv.is_at_rest(sync_priv.consumer_shards) is
  'True when a shard has delivered everything there is.';
