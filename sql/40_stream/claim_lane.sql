-- Take over a lane: draw a new fencing token, so that whoever held it can no longer write.
--
-- Called by: a service that holds the lane (see sync.share_lanes()), before it starts it, on the
-- very session that holds it.
-- Locks: the cursor's row; the first time the source, so that a lane gets one cursor and no more.
create or replace function sync.claim_lane(p_source_id int, p_lane int default 0)
  returns table (token bigint, seq bigint)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
begin
  if not exists (select from sync_priv.lanes l
                  where l.source_id = p_source_id and l.lane = p_lane) then
    perform from sync.sources s where s.source_id = p_source_id for no key update;
    insert into sync.cursors (source_id, lane, token, updated_at)
    select p_source_id, p_lane, 0, sync_priv.clock()
     where not exists (select from sync_priv.lanes l
                        where l.source_id = p_source_id and l.lane = p_lane);
  end if;
  return query
    update sync.cursors c
       set token = nextval('sync_priv.tokens'), filter_generation = 0,
           updated_at = sync_priv.clock()
     where c.source_id = p_source_id and c.lane = p_lane
    returning c.token, c.seq;
end
$$;
comment on function sync.claim_lane(int, int) is
  'Draw a new fencing token for a lane; returns it with the durable cursor (null at first).';
