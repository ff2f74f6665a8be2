-- Purge the collections that no filter covers any more: one row each in the log, for everybody.
--
-- Called by: sync.untrack_collections(); sync.maintain(), since a lane that read the filters
-- before may bring a collection nobody has seen, after the decision.
--
-- The rows of sync.collections are written so that they are newer than any snapshot of now, which
-- is how a writer with one learns of it (sync_priv.number_changes()).
create or replace function sync_priv.purge_untracked()
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  with purged as (
    insert into sync_priv.purges (collection_id, started_at)
    select c.collection_id, sync_priv.clock()
      from sync.collections c
     where not c.is_purged
       and not sync_priv.is_tracked_nsid(c.nsid)
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = 0
                          and coalesce(p.collection_id, 0) = c.collection_id)
        on conflict do nothing
    returning collection_id
  ), dated as (
    update sync.collections c set is_purged = false
      from purged p where c.collection_id = p.collection_id
  )
  insert into sync_priv.pending_changes (xid, kind, collection_id)
  select pg_current_xact_id(), 'purge', p.collection_id from purged p order by p.collection_id
$$;
comment on function sync_priv.purge_untracked() is
  'Begin a purge of every collection that no filter covers and that is not purged yet.';
