-- Up to which change id one batch may read the log: a bounded number of rows, more of them when
-- a filter skips most.
--
-- With several shards a purge of everybody ends the batch: delivered by one shard it would take
-- away what the others have delivered since. sync.read_changes() turns it into purges of repos.
--
-- Called by: sync_priv.next_changes().
create or replace function sync_priv.batch_end(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_max_changes int,
  p_head        bigint)
  returns bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_filtered boolean := p_consumer.shards > 1 or p_consumer.dids is not null
                           or p_consumer.collections is not null;
  v_rows        bigint := p_max_changes * case when v_is_filtered then 10 else 1 end;
  v_upto        bigint;
begin
  -- Ids leave gaps only where an epoch begins: count from the first row there is.
  select least(p_head, min(c.change_id) + greatest(v_rows, 1000) - 1) into v_upto
    from sync.changes c where c.change_id > p_shard.position;
  if p_consumer.shards > 1 then
    select least(v_upto, min(c.change_id)) into v_upto
      from sync.changes c
     where c.repo_id is null and c.change_id > p_shard.position and c.change_id <= v_upto;
  end if;
  return v_upto;
end
$$;
comment on function
  sync_priv.batch_end(sync.consumers, sync_priv.consumer_shards, int, bigint) is
  'The last change id that one batch of a reader may scan.';
