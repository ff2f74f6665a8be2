-- Where a shard of several has just come to a purge of everybody, owe it repo by repo: the rows of
-- the other shards are at other positions and none of its business.
--
-- Writes a row a repo; such a purge is rare (a collection is no longer tracked).
--
-- Called by: sync_priv.read_shard(), after a batch that sync_priv.batch_end() ended there.
create or replace function sync_priv.owe_everybody(
  p_consumer sync.consumers,
  p_before   sync_priv.consumer_shards,
  p_shard    sync_priv.consumer_shards)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_purge record;
begin
  if p_consumer.shards = 1 then
    return;
  end if;
  select c.collection_id into v_purge
    from sync.changes c
   where c.repo_id is null and c.change_id = p_shard.position
     and p_shard.position > p_before.position;
  if found then
    perform sync_priv.owe_purges(
      p_consumer, p_shard, sync_priv.covered_repos(p_consumer.dids),
      case when v_purge.collection_id is not null then array[v_purge.collection_id] end);
  end if;
end
$$;
comment on function sync_priv.owe_everybody(
  sync.consumers, sync_priv.consumer_shards, sync_priv.consumer_shards) is
  'Turn a purge of everybody into owed purges of the repos of one shard.';
