-- Fence on a lane's cursor and move it; false when another process has claimed the lane.
--
-- By index, also while the table is one page: a session keeps its plans, and under an old snapshot
-- that page becomes thousands of dead ones. The newest version comes first.
--
-- Called by: sync.apply_events(), before anything else.
-- Locks: the cursor's row; whoever claims the lane meanwhile waits, or is seen here.
create or replace function sync_priv.move_cursor(
    p_source_id int, p_lane int, p_token bigint, p_cursor bigint, p_filter_generation bigint)
  returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_cursor sync.cursors;
begin
  select c.* into v_cursor
    from sync.cursors c
   where c.source_id = p_source_id and c.lane = p_lane
   order by c.lane_epoch desc, c.version desc
   limit 1
     for update;
  if not found or v_cursor.token <> p_token then
    return false;
  end if;
  update sync.cursors c
     set seq = greatest(c.seq, p_cursor),
         filter_generation = greatest(c.filter_generation, p_filter_generation),
         updated_at = sync_priv.clock(),
         version = c.version + 1
   where (c.source_id, c.lane, c.lane_epoch, c.version)
         = (p_source_id, p_lane, v_cursor.lane_epoch, v_cursor.version);
  return true;
end
$$;
comment on function sync_priv.move_cursor(int, int, bigint, bigint, bigint) is
  'Move the cursor of a lane to p_cursor (null: leave it) and publish its filter generation; false
when the token is no longer valid.';
