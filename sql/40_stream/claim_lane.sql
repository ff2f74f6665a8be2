-- Take over a lane: draw a new fencing token, so that whoever held it can no longer write.
--
-- Called by: a lane, whenever it (re)connects to the database.
-- Locks: the cursor's row.
create or replace function sync.claim_lane(p_source_id int, p_lane int default 0)
  returns table (token bigint, seq bigint)
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into sync.cursors as c (source_id, lane, token, updated_at)
  values (p_source_id, p_lane, nextval('sync_priv.tokens'), sync_priv.clock())
      on conflict (source_id, lane_epoch, lane) do update
     set token = excluded.token, filter_generation = 0, updated_at = excluded.updated_at
  returning c.token, c.seq
$$;
comment on function sync.claim_lane(int, int) is
  'Draw a new fencing token for a lane; returns it with the durable cursor (null at first).';
