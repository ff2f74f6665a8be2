-- Read the next changes of one shard of a consumer, and advance it.
--
-- Each call does a bounded amount of work, so one whose filter matches little may return nothing
-- before the end is reached.
--
-- Called by: sync.read_changes(), sync_priv.take_changes(), which know that the caller may.
-- Locks: the row of the shard, so that one worker at a time reads it.
-- Raises: SY301 when it is outrun, SY002 for a shard that is none.
create or replace function sync_priv.read_shard(
  p_consumer    sync.consumers,
  p_max_changes int,
  p_shard       int)
  returns table ("position" text, kind text, did text, collection text, rkey text, rev text,
                 cid text, is_live boolean, value jsonb, raw bytea, reason text,
                 logged_at timestamptz)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_shard  sync_priv.consumer_shards;
  v_before sync_priv.consumer_shards;
  v_count  bigint := 0;
begin
  select s.* into v_shard
    from sync_priv.consumer_shards s
   where s.consumer_id = p_consumer.consumer_id and s.shard = p_shard
   order by s.version desc
   limit 1
     for update;
  if not found then
    raise exception 'consumer % has no shard %', quote_literal(p_consumer.name), p_shard
      using errcode = 'SY002',
            hint = format('Its shards are 0 to %s.', p_consumer.shards - 1);
  end if;
  perform sync_priv.refuse_outrun(p_consumer, v_shard);
  -- A few rounds, so that an empty answer nearly always means there is nothing more.
  for v_round in 1 .. 10 loop
    return query select * from sync_priv.read_batch(p_consumer, v_shard, p_max_changes);
    get diagnostics v_count = row_count;
    v_before := v_shard;
    select s.* into v_shard
      from sync_priv.consumer_shards s
     where s.consumer_id = p_consumer.consumer_id and s.shard = p_shard
     order by s.version desc
     limit 1;
    perform sync_priv.owe_everybody(p_consumer, v_before, v_shard);
    exit when v_count > 0 or sync_priv.is_at_rest(v_shard);
  end loop;
end
$$;
comment on function sync_priv.read_shard(sync.consumers, int, int) is
  'Return the next changes of a shard and advance it. Raises SY301, SY002.';
