-- Give a source a number of lanes. Another number than before begins a new lane epoch: repos move
-- between lanes then, so all of them start at the lowest of the old cursors, and no token of before
-- is worth anything. What is read twice is stale.
--
-- Idempotent.
--
-- Called by: sync.share_lanes(), by who is the only one to read the source.
-- Locks: the source, then every cursor of it, which waits for batches that are being applied.
-- Raises: SY002 for a number out of range.
create or replace function sync_priv.set_lanes(p_source_id int, p_lanes int)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_count int;
  v_epoch int;
  v_seq   bigint;
begin
  if p_lanes is null or p_lanes not between 1 and 256 then
    raise exception 'a source has 1 to 256 lanes, not %', p_lanes using errcode = 'SY002';
  end if;
  perform from sync.sources s where s.source_id = p_source_id for no key update;
  perform from sync.cursors c
    where c.source_id = p_source_id order by c.lane, c.lane_epoch, c.version for update;
  -- A lane without a cursor never started: nothing was fetched that it could have missed (BF-01),
  -- and beginning without one compares every repo (CU-09).
  select count(*), max(l.lane_epoch), case when bool_and(l.seq is not null) then min(l.seq) end
    into v_count, v_epoch, v_seq
    from sync_priv.lanes l
   where l.source_id = p_source_id;
  if v_count = p_lanes then
    return;
  end if;
  delete from sync.cursors c where c.source_id = p_source_id;
  insert into sync.cursors (source_id, lane_epoch, lane, seq, token, updated_at)
  select s.source_id, coalesce(v_epoch, 0) + 1, n, v_seq, nextval('sync_priv.tokens'),
         sync_priv.clock()
    from sync.sources s
   cross join generate_series(0, p_lanes - 1) as g (n)
   where s.source_id = p_source_id;
end
$$;
comment on function sync_priv.set_lanes(int, int) is
  'Give a source p_lanes lanes (1 to 256); another number than before is a new lane epoch. Raises SY002.';
