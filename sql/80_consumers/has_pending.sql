-- Does a shard owe stored records of single repos or collections?
--
-- Called by: sync_priv.log_steps(), sync_priv.is_at_rest().
create or replace function sync_priv.has_pending(p_shard sync_priv.consumer_shards)
  returns boolean
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from sync_priv.consumer_pending p
                  where p.consumer_id = p_shard.consumer_id and p.shard = p_shard.shard
                    and p.pending_id >= p_shard.pending_from);
end
$$;
comment on function sync_priv.has_pending(sync_priv.consumer_shards) is
  'True when a shard has pending keys besides those beyond its frontier.';
