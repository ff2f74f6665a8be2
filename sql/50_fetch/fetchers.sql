-- The sessions that fetch, wherever they are.
--
-- Called by: sync_priv.fetcher_id(), sync_priv.recover_lost_fetches().
create or replace function sync_priv.fetchers()
  returns table (fetcher_id int, pid int)
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select l.objid::int, l.pid
    from pg_locks l
   where l.locktype = 'advisory' and l.classid = 7265 and l.objsubid = 2 and l.granted
     and l.database = (select d.oid from pg_database d where d.datname = current_database())
$$;
comment on function sync_priv.fetchers() is 'The sessions that fetch.';
