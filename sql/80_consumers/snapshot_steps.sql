-- What the `snapshot` rows of a stretch of the log make pending: their (repo, collection), whole.
--
-- Called by: sync_priv.next_changes().
create or replace function sync_priv.snapshot_steps(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_upto        bigint,
  p_repos       bigint[],
  p_collections int[])
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select distinct 'pend', null::bigint, null, s.repo_id, s.collection_id, ''::text collate "C",
         null, null::bytea, null::boolean, null::jsonb, null::bytea, null, null::timestamptz
    from sync.changes s
   where s.change_id > p_shard.position and s.change_id <= p_upto
     and s.kind = 'snapshot'
     and s.repo_id % p_consumer.shards = p_shard.shard
     and (p_shard.frontier is null or s.repo_id <= p_shard.frontier)
     and (p_repos is null or s.repo_id in (select r from unnest(p_repos) as u (r)))
     and (p_collections is null or s.collection_id = any (p_collections))
     and not exists (select from sync_priv.consumer_pending p
                      where (p.consumer_id, p.shard) = (p_shard.consumer_id, p_shard.shard)
                        and p.repo_id = s.repo_id and p.collection_id in (0, s.collection_id)
                        and p.after_rkey = '');
end
$$;
comment on function sync_priv.snapshot_steps(sync.consumers, sync_priv.consumer_shards, bigint,
  bigint[], int[]) is 'The keys that the snapshot rows up to p_upto make pending.';
