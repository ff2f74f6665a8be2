-- Make keys of a shard pending and owe a purge first: whole repos, or some collections of them.
-- Tombstones and hidden repos too: the reader may hold records of theirs. Repos beyond the
-- frontier are pending anyway.
--
-- Called by: sync.replay(), sync_priv.owe_everybody(), with the shard's row locked.
create or replace function sync_priv.owe_purges(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_repos       bigint[],
  p_collections int[])
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  -- What is pending as a whole needs no rows for its parts.
  delete from sync_priv.consumer_pending p
   where p_collections is null
     and (p.consumer_id, p.shard) = (p_shard.consumer_id, p_shard.shard)
     and (p_repos is null or p.repo_id = any (p_repos));
  insert into sync_priv.consumer_pending
    (consumer_id, shard, repo_id, collection_id, owes_purge)
  select p_shard.consumer_id, p_shard.shard, r.repo_id, c.collection_id, true
    from sync_priv.next_repos(0, p_consumer.shards, p_shard.shard, p_repos, null) as r (repo_id)
    cross join unnest(coalesce(p_collections, '{0}')) as c (collection_id)
   where (p_shard.frontier is null or r.repo_id <= p_shard.frontier)
     and not exists (select from sync_priv.consumer_pending p
                      where (p.consumer_id, p.shard) = (p_shard.consumer_id, p_shard.shard)
                        and p.repo_id = r.repo_id and p.collection_id = 0)
      on conflict (consumer_id, shard, repo_id, collection_id) do update
     set after_rkey = '', owes_purge = true;
$$;
comment on function sync_priv.owe_purges(sync.consumers, sync_priv.consumer_shards, bigint[],
  int[]) is 'Make keys of a shard pending, with a purge owed first.';
