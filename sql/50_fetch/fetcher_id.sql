-- Who this session is as a fetcher. The first time it draws a number and locks it for as long as
-- the session lives: a claim whose number nobody holds is one that nobody works on.
--
-- Called by: sync.claim_fetches(), sync.claim_import().
-- Locks: advisory (7265, number), for the session.
create or replace function sync_priv.fetcher_id()
  returns int
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id int := (select f.fetcher_id from sync_priv.fetchers() f where f.pid = pg_backend_pid());
begin
  if v_id is null then
    v_id := nextval('sync_priv.fetcher_ids');
    perform pg_advisory_lock(7265, v_id);
  end if;
  return v_id;
end
$$;
comment on function sync_priv.fetcher_id() is 'The number under which this session fetches.';
