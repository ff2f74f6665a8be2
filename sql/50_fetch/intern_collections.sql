-- Give NSIDs their ids, ahead of the transaction that brings their records, so that no lane
-- ever waits for a long reconcile because both met a new collection.
--
-- Of a repo over its quota nothing gets an id: it must not be reconciled, for it would be stored
-- without some of its records. It fails, and loads once it brings less.
--
-- Idempotent.
--
-- Called by: fetchers, in a transaction of its own. Only tracked NSIDs get an id.
-- Locks: see sync_priv.intern_brought().
create or replace function sync.intern_collections(p_repo_ids bigint[], p_nsids text[])
  returns table (repo_id bigint)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_new      text[];
  v_crowded  bigint[];
begin
  v_new := array(select distinct u.nsid from unnest(p_nsids) as u (nsid)
                  where not exists (select from sync.collections c where c.nsid = u.nsid)
                    and sync_priv.is_tracked_nsid(u.nsid));
  if v_new = '{}' then
    return;
  end if;
  v_crowded := array(
    select u.repo_id
      from unnest(p_repo_ids, p_nsids) as u (repo_id, nsid)
      left join sync_priv.brought_collections b on b.repo_id = u.repo_id
     where u.nsid = any (v_new)
     group by u.repo_id, b.collections
    having coalesce(b.collections, 0) + count(distinct u.nsid) > sync_priv.collection_quota());
  perform sync_priv.intern_brought(array_agg(u.repo_id), array_agg(u.nsid))
     from unnest(p_repo_ids, p_nsids) as u (repo_id, nsid)
    where u.nsid = any (v_new) and u.repo_id <> all (v_crowded);
  return query select c.repo_id from unnest(v_crowded) as c (repo_id);
end
$$;
comment on function sync.intern_collections(bigint[], text[]) is
  'Make sure the tracked NSIDs among p_nsids have ids, each one of the repo at its place in
p_repo_ids; returns the repos over their quota, of which nothing was done.';
