-- What a walk comes to next: pending keys first, the oldest first, then repos beyond the frontier.
--
-- Keys that a snapshot in this batch makes pending anew wait for the next batch: their row is
-- being written.
--
-- Called by: sync_priv.walk_steps().
create or replace function sync_priv.walk_items(
  p_consumer sync.consumers,
  p_shard    sync_priv.consumer_shards,
  p_upto     bigint,
  p_limit    int,
  p_repos    bigint[])
  returns table (repo_id bigint, collection_id int, after_rkey text, owes_purge boolean,
                 is_frontier boolean)
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count int;
begin
  return query
    select p.repo_id, p.collection_id, p.after_rkey::text, p.owes_purge, false
      from sync_priv.consumer_pending p
     where p.consumer_id = p_shard.consumer_id and p.shard = p_shard.shard
       and p.pending_id >= p_shard.pending_from
       and not exists (select from sync.changes s
                        where s.kind = 'snapshot' and s.repo_id = p.repo_id
                          and s.collection_id = p.collection_id
                          and s.change_id > p_shard.position and s.change_id <= p_upto)
     order by p.pending_id
     limit p_limit;
  get diagnostics v_count = row_count;
  if p_shard.frontier is not null and v_count < p_limit then
    return query
      select r, 0, '', p_shard.is_restart, true
        from sync_priv.next_repos(p_shard.frontier, p_consumer.shards, p_shard.shard, p_repos,
                                  p_limit - v_count) as n (r);
  end if;
end
$$;
comment on function sync_priv.walk_items(sync.consumers, sync_priv.consumer_shards, bigint, int,
  bigint[]) is 'Pending keys and repos beyond the frontier of a shard, in order.';
