-- Give new NSIDs their ids, and count them with the repos that brought them.
--
-- Called by: sync.intern_collections(), sync_priv.intern_ops(), which keep the quota.
-- Locks: the counts, in repo_id order.
create or replace function sync_priv.intern_brought(p_repo_ids bigint[], p_nsids text[])
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  with brought as (
    select u.nsid, min(u.repo_id) as repo_id
      from unnest(p_repo_ids, p_nsids) as u (repo_id, nsid)
     group by u.nsid
  ), added as (
    insert into sync.collections (nsid)
    select b.nsid from brought b order by 1
        on conflict do nothing
    returning nsid
  )
  insert into sync_priv.brought_collections as c (repo_id, collections)
  select b.repo_id, count(*)
    from added a
    join brought b using (nsid)
   group by b.repo_id
   order by b.repo_id
      on conflict (repo_id) do update set collections = c.collections + excluded.collections
$$;
comment on function sync_priv.intern_brought(bigint[], text[]) is
  'Give NSIDs their ids; each is brought by the repo at its place in p_repo_ids.';
