-- Insert the collections that were empty, and log one `snapshot` row each instead of a row a
-- record: a backfill keeps no second copy of what it stores.
--
-- Called by: sync.reconcile_repos().
-- Raises: SY201 when the contents of a key are missing.
create or replace function sync_priv.load_first()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_wanted bigint;
  v_loaded bigint;
begin
  if not exists (select from pg_temp.first_loads) then
    return;
  end if;
  select count(*) into v_wanted
    from pg_temp.first_loads f
    join sync.collections c using (collection_id)
    join pg_temp.stage_records s on (s.repo_id, s.collection) = (f.repo_id, c.nsid)
    join pg_temp.stage_repos r on r.repo_id = f.repo_id
   where s.is_whole is distinct from r.is_keyed;
  perform set_config('sync.self_logged', 'on', true);
  insert into sync.stored_records
    (repo_id, collection_id, rkey, cid, rev, value, raw, reason, indexed_at)
  select f.repo_id, f.collection_id, s.rkey, s.cid, r.rev, s.value, s.raw, s.reason,
         sync_priv.clock()
    from pg_temp.first_loads f
    join sync.collections c using (collection_id)
    join pg_temp.stage_records s on (s.repo_id, s.collection) = (f.repo_id, c.nsid)
    join pg_temp.stage_repos r on r.repo_id = f.repo_id
   where s.is_whole;
  get diagnostics v_loaded = row_count;
  perform set_config('sync.self_logged', '', true);
  if v_loaded <> v_wanted then
    raise exception 'contents staged for % of % records', v_loaded, v_wanted
      using errcode = 'SY201';
  end if;
  insert into sync_priv.pending_changes (xid, kind, repo_id, collection_id, rev)
  select pg_current_xact_id(), 'snapshot', f.repo_id, f.collection_id, r.rev
    from pg_temp.first_loads f
    join pg_temp.stage_repos r using (repo_id)
    join sync_priv.visible_repos v using (repo_id)
   order by f.repo_id, f.collection_id;
end
$$;
comment on function sync_priv.load_first() is
  'Insert the records of pg_temp.first_loads and log a snapshot of each. Raises SY201.';
