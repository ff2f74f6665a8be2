-- Compare the staged keys with the stored rows, once a transaction.
--
-- A (repo, collection) without rows is a first load and needs no comparison. For the others one
-- full join finds what is new, changed and gone, in the tracked collections only (BF-05..07).
--
-- Called by: sync.diff_repos(), sync.reconcile_repos().
create or replace function sync_priv.fill_diff()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_repo_ids       bigint[] := array(select s.repo_id from pg_temp.stage_repos s
                                      where s.outcome = 'ok');
  v_collection_ids int[];
begin
  delete from pg_temp.first_loads;
  delete from pg_temp.diff;
  with staged as materialized (select distinct s.collection from pg_temp.stage_records s)
  insert into sync.collections (nsid)
  select k.collection
    from staged k
   where sync_priv.is_tracked_nsid(k.collection)
     and not exists (select from sync.collections c where c.nsid = k.collection)
   order by 1
      on conflict do nothing;
  v_collection_ids := array(
    select c.collection_id
      from sync.collections c
     where (c.nsid in (select k.collection from pg_temp.stage_records k)
            or c.collection_id in (select p.collection_id
                                     from sync_priv.present_collections(v_repo_ids) p))
       and sync_priv.is_tracked_nsid(c.nsid));
  with staged as materialized (
    select distinct s.repo_id, s.collection
      from pg_temp.stage_records s
      join pg_temp.stage_repos r using (repo_id)
     where r.outcome = 'ok'
  )
  insert into pg_temp.first_loads (repo_id, collection_id)
  select k.repo_id, c.collection_id
    from staged k
    join sync.collections c on c.nsid = k.collection
   where c.collection_id = any (v_collection_ids)
     and not exists (select from sync.stored_records r
                      where r.repo_id = k.repo_id and r.collection_id = c.collection_id);
  -- Nothing is compared for repos that have nothing: a backfill is mostly those.
  v_repo_ids := array(
    select distinct p.repo_id
      from sync_priv.present_collections(v_repo_ids) p
     where p.collection_id = any (v_collection_ids));
  if v_repo_ids = '{}' then
    return;
  end if;
  insert into pg_temp.diff (repo_id, collection_id, rkey, action, cid)
  select coalesce(k.repo_id, r.repo_id), coalesce(k.collection_id, r.collection_id),
         coalesce(k.rkey, r.rkey),
         case when r.cid is null then 'create' when k.cid is null then 'delete' else 'update' end,
         k.cid
    from (
      select s.repo_id, c.collection_id, s.rkey, s.cid
        from pg_temp.stage_records s
        join sync.collections c on c.nsid = s.collection
        join pg_temp.stage_repos t on t.repo_id = s.repo_id
       where s.repo_id = any (v_repo_ids)
         and s.is_whole is distinct from t.is_keyed
         and c.collection_id = any (v_collection_ids)
         and not exists (select from pg_temp.first_loads f
                          where f.repo_id = s.repo_id and f.collection_id = c.collection_id)
    ) k
    full join (
      select o.repo_id, o.collection_id, o.rkey, o.cid
        from sync.stored_records o
       where o.repo_id = any (v_repo_ids) and o.collection_id = any (v_collection_ids)
    ) r on (k.repo_id, k.collection_id, k.rkey) = (r.repo_id, r.collection_id, r.rkey)
   where k.cid is distinct from r.cid;
end
$$;
comment on function sync_priv.fill_diff() is
  'Fill pg_temp.first_loads and pg_temp.diff from the stage and the stored records.';
