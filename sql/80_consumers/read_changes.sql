-- Read the next changes of a consumer and advance it, in the caller's transaction: its commit is
-- the acknowledgement, its rollback takes the reading back.
--
--   1. begin; select * from sync.read_changes('my_app');
--   2. apply the rows to your tables;
--   3. commit;  again from 1 until nothing comes, then wait for NOTIFY sync_changes.
--
-- Each call does a bounded amount of work, so a filter that matches little may return nothing
-- before the end is reached; sync.consumer_status says `is_at_rest`.
--
-- By index, also while a table is one page: a session keeps its plans, and under an old snapshot
-- that page becomes thousands of dead ones.
--
-- Called by: apps.
-- Locks: the row of the shard, so that one worker at a time reads it.
-- Raises: SY302 for no consumer of the caller's, SY301 when it is outrun, SY002 for a bad
-- argument.
create or replace function sync.read_changes(
  p_name        text,
  p_max_changes int default 1000,
  p_shard       int default 0)
  returns table ("position" text, kind text, did text, collection text, rkey text, rev text,
                 cid text, is_live boolean, value jsonb, raw bytea, reason text,
                 logged_at timestamptz)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_consumer sync.consumers := sync_priv.own_consumer(p_name);
  v_shard    sync_priv.consumer_shards;
  v_before   sync_priv.consumer_shards;
  v_count    bigint := 0;
begin
  if p_max_changes is null or p_max_changes not between 1 and 100000 then
    raise exception 'p_max_changes must be between 1 and 100000' using errcode = 'SY002';
  end if;
  select s.* into v_shard
    from sync_priv.consumer_shards s
   where s.consumer_id = v_consumer.consumer_id and s.shard = p_shard
   order by s.version desc
   limit 1
     for update;
  if not found then
    raise exception 'consumer % has no shard %', quote_literal(p_name), p_shard
      using errcode = 'SY002',
            hint = format('Its shards are 0 to %s.', v_consumer.shards - 1);
  end if;
  perform sync_priv.refuse_outrun(v_consumer, v_shard);
  -- A few rounds, so that an empty answer nearly always means there is nothing more.
  for v_round in 1 .. 10 loop
    return query select * from sync_priv.read_batch(v_consumer, v_shard, p_max_changes);
    get diagnostics v_count = row_count;
    v_before := v_shard;
    select s.* into v_shard
      from sync_priv.consumer_shards s
     where s.consumer_id = v_consumer.consumer_id and s.shard = p_shard
     order by s.version desc
     limit 1;
    perform sync_priv.owe_everybody(v_consumer, v_before, v_shard);
    exit when v_count > 0 or sync_priv.is_at_rest(v_shard);
  end loop;
end
$$;
comment on function sync.read_changes(text, int, int) is
  'Return the next changes of consumer p_name and advance it when the transaction commits.
Raises SY301 (outrun: call sync.replay), SY302 (no such consumer of yours), SY002.';
