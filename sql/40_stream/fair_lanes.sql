-- How many of the lanes of a source fall to this session: the same for everybody, and the first
-- ones take what is left over.
--
-- Called by: sync.share_lanes().
create or replace function sync_priv.fair_lanes(p_source_id int, p_lanes int)
  returns int
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select p_lanes / m.members + (m.place <= p_lanes % m.members)::int
    from (select r.pid, row_number() over (order by r.pid)::int as place,
                 (count(*) over ())::int as members
            from sync_priv.lane_readers(p_source_id) r) m
   where m.pid = pg_backend_pid()
$$;
comment on function sync_priv.fair_lanes(int, int) is
  'This session''s share of p_lanes lanes.';
