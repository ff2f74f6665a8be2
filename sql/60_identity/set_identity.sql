-- Store what a DID resolved to.
--
-- A message that failed with the old key is made up for: when the key or the PDS is new, the
-- repo is fetched once (A-21, D-03); again, if a fetch ran already when it failed. A busy repo is
-- left stale, to be looked up again.
--
-- Called by: the service, after resolving.
-- Locks: the repo's row, skip locked.
create or replace function sync.set_identity(
    p_did text, p_handle text, p_pds_url text, p_signing_key text)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_repo_id bigint;
  v_host_id int := 0;
begin
  select r.repo_id into v_repo_id
    from sync.repos r where r.did = p_did for no key update skip locked;
  if not found then
    return false;
  end if;
  if p_pds_url is not null then
    insert into sync.hosts (url, updated_at) values (p_pds_url, sync_priv.clock())
        on conflict (url) do nothing;
    select h.host_id into v_host_id from sync.hosts h where h.url = p_pds_url;
  end if;
  update sync.repos r
     set handle = p_handle, pds_url = p_pds_url, signing_key = p_signing_key,
         host_id = v_host_id, is_identity_stale = false,
         identity_checked_at = sync_priv.clock(),
         sync_state = case
           when (r.sync_state = 'synchronized' and r.rejected_at is not null
                 or r.sync_state = 'fetching' and r.rejected_at >= r.fetch_started_at)
                and (r.signing_key, r.pds_url) is distinct from (p_signing_key, p_pds_url)
             then 'desynchronized'
           else r.sync_state
         end,
         rejected_at = case
           when (r.signing_key, r.pds_url) is distinct from (p_signing_key, p_pds_url) then null
           else r.rejected_at
         end,
         next_fetch_at = case
           when (r.signing_key, r.pds_url) is distinct from (p_signing_key, p_pds_url)
             then least(r.next_fetch_at, sync_priv.clock())
           else r.next_fetch_at
         end
   where r.repo_id = v_repo_id;
  update sync.fetch_queue q set host_id = v_host_id
   where q.repo_id = v_repo_id and q.host_id <> v_host_id;
  perform pg_notify('sync_work', '');
  return true;
end
$$;
comment on function sync.set_identity(text, text, text, text) is
  'Store handle, PDS and signing key (did:key) of a did; false when unknown or locked right now.';
