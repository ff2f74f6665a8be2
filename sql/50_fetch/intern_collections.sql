-- Give NSIDs their ids, ahead of the transaction that brings their records, so that no lane
-- ever waits for a long reconcile because both met a new collection.
--
-- Called by: fetchers, in a transaction of its own. Only tracked NSIDs get an id.
create or replace function sync.intern_collections(p_nsids text[])
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into sync.collections (nsid)
  select distinct n.nsid
    from unnest(p_nsids) as n (nsid)
   where sync_priv.is_tracked_nsid(n.nsid)
     and not exists (select from sync.collections c where c.nsid = n.nsid)
   order by 1
      on conflict do nothing
$$;
comment on function sync.intern_collections(text[]) is 'Make sure the tracked NSIDs among p_nsids have ids.';
