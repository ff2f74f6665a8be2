-- The lanes of a source that this session holds.
--
-- Called by: sync.share_lanes().
create or replace function sync_priv.held_lanes(p_source_id int)
  returns int[]
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select array(
    select l.objid::int - 256 * p_source_id
      from pg_locks l
     where l.locktype = 'advisory' and l.classid = 7264 and l.objsubid = 2 and l.granted
       and l.pid = pg_backend_pid() and l.objid::int / 256 = p_source_id
     order by 1)
$$;
comment on function sync_priv.held_lanes(int) is 'The lanes of a source that this session holds.';
