-- The rows of the log that a batch delivers: in order, filtered, keys that are not pending.
--
-- What concerns an account (purge, account, identity) goes to every reader whose did filter fits.
--
-- Called by: sync_priv.next_changes().
create or replace function sync_priv.log_steps(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_upto        bigint,
  p_max_changes int,
  p_repos       bigint[],
  p_collections int[])
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_has_snapshots boolean := exists (
    select from sync.changes s
     where s.change_id > p_shard.position and s.change_id <= p_upto and s.kind = 'snapshot');
  v_has_pending   boolean := sync_priv.has_pending(p_shard);
begin
  return query
    select 'deliver', c.change_id, c.kind, c.repo_id, c.collection_id, c.rkey, c.rev, c.cid,
           c.is_live, c.value, c.raw, c.reason, c.logged_at
      from sync.changes c
     where c.change_id > p_shard.position and c.change_id <= p_upto
       and c.kind <> 'snapshot'
       and (case when c.repo_id is null then p_consumer.shards = 1
                 else c.repo_id % p_consumer.shards = p_shard.shard end)
       and (p_repos is null or c.repo_id is null
            or c.repo_id in (select r from unnest(p_repos) as u (r)))
       -- CASE keeps the probes out of the join order: they run only where something is pending.
       and case
             when c.kind in ('purge', 'account', 'identity') then true
             when c.repo_id > p_shard.frontier then false
             when p_collections is not null and not c.collection_id = any (p_collections)
               then false
             when v_has_snapshots and exists (
               select from sync.changes s
                where s.kind = 'snapshot' and s.repo_id = c.repo_id
                  and s.collection_id = c.collection_id
                  and s.change_id > p_shard.position and s.change_id < c.change_id) then false
             when v_has_pending and exists (
               select from sync_priv.consumer_pending p
                where (p.consumer_id, p.shard) = (p_shard.consumer_id, p_shard.shard)
                  and p.repo_id = c.repo_id and p.collection_id in (0, c.collection_id)
                  and c.rkey > p.after_rkey) then false
             else true
           end
     order by c.change_id
     limit p_max_changes;
end
$$;
comment on function sync_priv.log_steps(sync.consumers, sync_priv.consumer_shards, bigint, int,
  bigint[], int[]) is 'The rows of the log that one batch of a reader delivers.';
