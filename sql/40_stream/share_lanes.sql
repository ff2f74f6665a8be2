-- Take part in reading a source: hold as many of its lanes as fairly fall to this session.
--
-- Whoever reads a source holds a shared advisory lock on it, and an exclusive one on each of his
-- lanes, in a session that the server ends when it falls silent. So who takes part, and what is
-- free, is what pg_locks says, and nobody keeps a clock. Each of m sessions is to hold n/m lanes;
-- who has more is told to give the surplus up, who has less takes what is free.
--
-- The number of lanes is changed only by who is alone, and joining comes before reading it: so it
-- is the same for as long as the session lives, which therefore draws the tokens, too.
--
-- Called by: services, about once a second on the session that holds the locks.
-- Locks: advisory (7263, source) shared and (7264, 256 source + lane), for the session; the
-- source's row when lanes are taken.
-- Raises: SY002 for a number of lanes out of range.
create or replace function sync.share_lanes(p_source_id int, p_lanes int)
  returns table (lanes int, lane int, is_surplus boolean)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count   int;
  v_members int;
  v_target  int;
  v_held    int[];
begin
  if not exists (select from sync_priv.lane_readers(p_source_id) m
                  where m.pid = pg_backend_pid()) then
    perform pg_advisory_lock_shared(7263, p_source_id);
  end if;
  v_count := (select count(*) from sync_priv.lanes l where l.source_id = p_source_id);
  v_members := (select count(*) from sync_priv.lane_readers(p_source_id));
  v_held := sync_priv.held_lanes(p_source_id);
  v_target := sync_priv.fair_lanes(p_source_id, v_count);
  if v_count = 0 or cardinality(v_held) < v_target
     or (v_members = 1 and v_count is distinct from p_lanes) then
    perform from sync.sources s where s.source_id = p_source_id for no key update;
    v_count := (select count(*) from sync_priv.lanes l where l.source_id = p_source_id);
    v_members := (select count(*) from sync_priv.lane_readers(p_source_id));
    if v_count = 0 or v_members = 1 then
      perform sync_priv.set_lanes(p_source_id, p_lanes);
      v_count := (select count(*) from sync_priv.lanes l where l.source_id = p_source_id);
    end if;
    v_target := sync_priv.fair_lanes(p_source_id, v_count);
    -- One by one: each attempt is a side effect, and only so many are wanted.
    for v_lane in 0 .. v_count - 1 loop
      exit when cardinality(v_held) >= v_target;
      if v_lane <> all (v_held)
         and pg_try_advisory_lock(7264, 256 * p_source_id + v_lane) then
        v_held := v_held || v_lane;
      end if;
    end loop;
  end if;
  return query
    select v_count, h.lane, h.place > v_target or h.lane >= v_count
      from (select u.lane, row_number() over (order by u.lane) as place
              from unnest(v_held) as u (lane)) h
    union all
    select v_count, null, false where v_held = '{}'
     order by 2;
end
$$;
comment on function sync.share_lanes(int, int) is
  'Hold this session''s fair share of the lanes of a source, and of their number (p_lanes, if it is the
only one to read it). Returns that number beside each lane held, or beside null for none, and whether
it has to be given up with sync.leave_lane(). Raises SY002.';
