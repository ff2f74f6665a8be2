-- Write one materialized diff: delete, update, insert, and log each row.
--
-- Called by: sync.reconcile_repos().
-- Raises: SY201 when the contents of a changed record are missing.
create or replace function sync_priv.apply_diff()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from pg_temp.diff) then
    return;
  end if;
  if exists (
    select from pg_temp.diff d
      join sync.collections c using (collection_id)
      left join pg_temp.stage_records s
        on (s.repo_id, s.collection, s.rkey) = (d.repo_id, c.nsid, d.rkey) and s.is_whole
     where d.action <> 'delete' and s.cid is distinct from d.cid
  ) then
    raise exception 'the contents of a changed record were not staged' using errcode = 'SY201';
  end if;
  perform set_config('sync.self_logged', 'on', true);
  with needed as materialized (
    select d.repo_id, d.collection_id, d.rkey, d.action, d.cid, r.rev, s.value, s.raw, s.reason
      from pg_temp.diff d
      join pg_temp.stage_repos r using (repo_id)
      join sync.collections c using (collection_id)
      left join pg_temp.stage_records s
        on (s.repo_id, s.collection, s.rkey) = (d.repo_id, c.nsid, d.rkey) and s.is_whole
  ), logged as (
    insert into sync_priv.pending_changes
      (xid, kind, repo_id, collection_id, rkey, rev, cid, value, raw, reason)
    select pg_current_xact_id(), n.action, n.repo_id, n.collection_id, n.rkey, n.rev, n.cid,
           n.value, n.raw, n.reason
      from needed n
      join sync_priv.visible_repos v using (repo_id)
     order by n.repo_id, n.collection_id, n.rkey
  ), removed as (
    delete from sync.stored_records s
     using needed n
     where n.action = 'delete'
       and (s.repo_id, s.collection_id, s.rkey) = (n.repo_id, n.collection_id, n.rkey)
  ), changed as (
    update sync.stored_records s
       set cid = n.cid, rev = n.rev, value = n.value, raw = n.raw, reason = n.reason,
           indexed_at = sync_priv.clock()
      from needed n
     where n.action = 'update'
       and (s.repo_id, s.collection_id, s.rkey) = (n.repo_id, n.collection_id, n.rkey)
  )
  insert into sync.stored_records
    (repo_id, collection_id, rkey, cid, rev, value, raw, reason, indexed_at)
  select n.repo_id, n.collection_id, n.rkey, n.cid, n.rev, n.value, n.raw, n.reason,
         sync_priv.clock()
    from needed n
   where n.action = 'create';
  perform set_config('sync.self_logged', '', true);
end
$$;
comment on function sync_priv.apply_diff() is
  'Apply and log pg_temp.diff with the contents of pg_temp.stage_records. Raises SY201.';
