-- The sessions that take part in reading a source.
--
-- Called by: sync.share_lanes(), sync_priv.fair_lanes().
create or replace function sync_priv.lane_readers(p_source_id int)
  returns table (pid int)
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select l.pid
    from pg_locks l
   where l.locktype = 'advisory' and l.classid = 7263 and l.objid = p_source_id and l.objsubid = 2
     and l.granted
     and l.database = (select d.oid from pg_database d where d.datname = current_database())
$$;
comment on function sync_priv.lane_readers(int) is 'Who takes part in reading a source.';
