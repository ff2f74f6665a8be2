-- Claim one repo for an import from a file. A repo that nobody tracks becomes one that only
-- imports bring: it is stored and shown, not fetched and not read from the stream. Like a fetch
-- it waits until none of the rows on their way out is left (see sync.maintain()).
-- A file may be of any age, so a repo that is tracked is fetched from its PDS next: its
-- fetch_started_at stays null.
--
-- Called by: `standpipe import`.
-- Locks: the repo's row.
-- Raises: SY002 for a malformed did.
create or replace function sync.claim_import(p_did text)
  returns table (repo_id bigint, generation bigint, fetch_token bigint, has_records boolean)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_fetcher    int := sync_priv.fetcher_id();
  v_generation bigint;
begin
  perform sync_priv.check_dids(array[p_did]);
  if exists (select from sync_priv.purges p
               left join sync.repos r using (repo_id)
               left join sync.collections c using (collection_id)
              where r.did = p_did
                 or (p.repo_id is null and sync_priv.is_tracked_nsid(c.nsid))) then
    return;
  end if;
  if not exists (select from sync.repos r where r.did = p_did and r.tracked_by is not null) then
    v_generation := sync_priv.next_filter_generation();
    if not exists (select from sync.filters f where f.kind = 'collection') then
      insert into sync.filters (kind, pattern, generation, created_at)
      values ('collection', '*', v_generation, sync_priv.clock());
    end if;
    insert into sync.repos as r
      (did, tracked_by, filter_generation, next_fetch_at, created_at, updated_at)
    values (p_did, 'import', v_generation, sync_priv.clock(), sync_priv.clock(),
            sync_priv.clock())
        on conflict (did) do update
       set tracked_by = 'import', filter_generation = excluded.filter_generation,
           is_active = true, account_status = null
     where r.tracked_by is null;
    insert into sync.heads (repo_id)
    select r.repo_id from sync.repos r where r.did = p_did
        on conflict do nothing;
  end if;
  update sync.repos r set sync_state = 'desynchronized'
   where r.did = p_did and r.sync_state = 'synchronized' and r.tracked_by is not null;
  return query
    update sync.repos r
       set sync_state = 'fetching', fetch_token = nextval('sync_priv.tokens'),
           fetcher_id = v_fetcher, fetch_started_at = null
     where r.did = p_did and r.sync_state <> 'fetching' and r.tracked_by is not null
    returning r.repo_id, r.generation, r.fetch_token,
              exists (select from sync.stored_records s where s.repo_id = r.repo_id);
end
$$;
comment on function sync.claim_import(text) is
  'Claim a repo for sync.reconcile_repos() from a file; no row while a fetch of it
runs or a purge it has to wait for. Raises SY002.';
