-- Top up the fetch queue from the backlog, host by host.
--
-- A repo is fetched only when every lane knows it, sync_priv.reached_generation(), and none of its
-- rows is on its way out. The queue never holds more than each host's share, so it stays small,
-- and so do its dead rows.
--
-- Called by: sync.claim_fetches(). One feeder at a time; the others do without.
-- Locks: advisory (7261, 2), skipped when taken; the repos (key share, skip locked).
create or replace function sync_priv.feed_fetches(p_per_host int)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_reached bigint := sync_priv.reached_generation();
begin
  if not pg_try_advisory_xact_lock(7261, 2) then
    return;
  end if;
  -- Counted once, not once a host: an old snapshot elsewhere makes this a scan of the dead.
  with queued as materialized (
    select q.host_id, count(*) as repos from sync.fetch_queue q group by q.host_id
  )
  insert into sync.fetch_queue (repo_id, host_id, queued_at)
  select b.repo_id, b.host_id, sync_priv.clock()
    from sync.hosts h
    cross join lateral (
      select r.repo_id, r.host_id
        from sync.repos r
       where r.host_id = h.host_id
         and r.tracked_by = 'did' and r.is_active
         and r.sync_state in ('pending', 'desynchronized', 'failed')
         and r.next_fetch_at <= sync_priv.clock()
         and r.filter_generation <= v_reached
         and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = r.repo_id)
         and not exists (select from sync.fetch_queue q where q.repo_id = r.repo_id)
       order by r.next_fetch_at, r.repo_id
       limit greatest(0, p_per_host
                         - (select count(*) from sync.repos f
                             where f.host_id = h.host_id and f.sync_state = 'fetching')
                         - coalesce((select q.repos from queued q
                                      where q.host_id = h.host_id), 0))
         -- The foreign key of the queue would wait for whoever holds a stronger lock.
         for key share skip locked
    ) b
   where h.ready_at <= sync_priv.clock()
      on conflict do nothing;
end
$$;
comment on function sync_priv.feed_fetches(int) is
  'Move repos from the backlog to sync.fetch_queue, at most p_per_host a host.';
