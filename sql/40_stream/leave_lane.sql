-- Give a lane up, for somebody else to take.
--
-- Called by: services, on the session that holds it, once the lane has stopped.
create or replace function sync.leave_lane(p_source_id int, p_lane int)
  returns boolean
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_unlock(7264, 256 * p_source_id + p_lane)
$$;
comment on function sync.leave_lane(int, int) is
  'Give a lane up that this session holds; false when it does not.';
