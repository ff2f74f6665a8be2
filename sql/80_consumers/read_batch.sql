-- One batch of a reader: apply the steps of sync_priv.next_changes() to the shard, return the rows
-- for the reader.
--
-- One statement: what it delivers and what it writes come from the same snapshot. Not an SQL
-- function, which would be planned anew by every call.
--
-- Called by: sync_priv.read_shard(), which holds the shard's row.
create or replace function sync_priv.read_batch(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_max_changes int)
  returns table ("position" text, kind text, did text, collection text, rkey text, rev text,
                 cid text, is_live boolean, value jsonb, raw bytea, reason text,
                 logged_at timestamptz)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  -- Read beforehand: what this batch adds to the queue has higher ids.
  v_last_id bigint := (select q.last_value from sync_priv.consumer_pending_pending_id_seq q);
begin
  return query
  with batch as materialized (
    select b.*
      from sync_priv.next_changes(p_consumer, p_shard, p_max_changes) with ordinality
           as b (step, change_id, kind, repo_id, collection_id, rkey, rev, cid, is_live, value,
                 raw, reason, logged_at, step_no)
  ), done as (
    delete from sync_priv.consumer_pending p
     using batch b
     where b.step = 'done'
       and (p.consumer_id, p.shard) = (p_shard.consumer_id, p_shard.shard)
       and (p.repo_id, p.collection_id) = (b.repo_id, b.collection_id)
  ), pended as (
    insert into sync_priv.consumer_pending
      (consumer_id, shard, repo_id, collection_id, after_rkey)
    select p_shard.consumer_id, p_shard.shard, b.repo_id, b.collection_id, b.rkey
      from batch b
     where b.step = 'pend'
        on conflict (consumer_id, shard, repo_id, collection_id) do update
       set after_rkey = excluded.after_rkey, owes_purge = false
  ), placed as (
    update sync_priv.consumer_shards s
       set position = b.change_id,
           frontier = b.repo_id,
           is_restart = s.is_restart and b.repo_id is not null,
           version = s.version + 1,
           -- As of before this batch: what it takes off the queue is passed over once more.
           pending_from = coalesce(
             (select min(p.pending_id) from sync_priv.consumer_pending p
               where p.consumer_id = s.consumer_id and p.shard = s.shard
                 and p.pending_id >= s.pending_from),
             v_last_id),
           read_at = sync_priv.clock()
      from batch b
     where b.step = 'place'
       and (s.consumer_id, s.shard, s.version)
           = (p_shard.consumer_id, p_shard.shard, p_shard.version)
  )
  select l.log_epoch || '.' || b.change_id, b.kind, r.did::text, c.nsid::text, b.rkey::text,
         b.rev::text,
         sync_priv.cid_text(b.cid), b.is_live, b.value, b.raw, b.reason, b.logged_at
    from batch b
    cross join sync_priv.log_state l
    left join sync.repos r on r.repo_id = b.repo_id
    left join sync.collections c on c.collection_id = b.collection_id
   where b.step = 'deliver'
   order by b.step_no;
end
$$;
comment on function
  sync_priv.read_batch(sync.consumers, sync_priv.consumer_shards, int) is
  'Deliver one batch of a reader and move its shard.';
