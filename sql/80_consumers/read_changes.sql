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
begin
  if p_max_changes is null or p_max_changes not between 1 and 100000 then
    raise exception 'p_max_changes must be between 1 and 100000' using errcode = 'SY002';
  end if;
  return query select * from sync_priv.read_shard(v_consumer, p_max_changes, p_shard);
end
$$;
comment on function sync.read_changes(text, int, int) is
  'Return the next changes of consumer p_name and advance it when the transaction commits.
Raises SY301 (outrun: call sync.replay), SY302 (no such consumer of yours), SY002.';
