-- Store what a DID resolved to.
--
-- A message that failed with the old key is made up for: when the key or the PDS is new, the
-- repo is fetched once (A-21, D-03); again, if a fetch ran already when it failed. A new PDS is
-- asked how the account stands, for the old one's word may be what we know. After an #identity
-- event an unchanged document may come from a mirror that lags, and a handle that fails may point
-- here in a moment: the repo is left stale, to be looked up once more (IN-17). So is one that was
-- doubted since the lookup began, and a busy one.
--
-- Several may look up one DID at a time, and the handle takes longer for one than for another: what
-- was looked up before the stored identity is not stored over it. p_age is how long ago that was.
--
-- Another key or PDS than was known is numbered, and the lanes go by it from then on (SG-08).
--
-- Called by: the service, after resolving.
-- Locks: the repo's row, skip locked; last the signer state, where key or PDS change.
create or replace function sync.set_identity(
    p_did text, p_handle text, p_pds_url text, p_signing_key text,
    p_age interval default interval '0')
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_repo     sync.repos%rowtype;
  v_host_id  int := 0;
  v_as_of    timestamptz := sync_priv.clock() - p_age;
  v_is_moved boolean;
  v_is_same  boolean;
  v_is_again boolean;
  v_is_late  boolean;
  v_serial   bigint;
begin
  select * into v_repo
    from sync.repos r where r.did = p_did for no key update skip locked;
  if not found then
    return false;
  end if;
  if v_repo.identity_as_of > v_as_of then
    return true;
  end if;
  v_is_moved := (v_repo.signing_key, v_repo.pds_url) is distinct from (p_signing_key, p_pds_url);
  v_is_same := not v_is_moved and v_repo.handle is not distinct from p_handle;
  if p_pds_url is not null then
    insert into sync.hosts (url, updated_at) values (p_pds_url, sync_priv.clock())
        on conflict (url) do nothing;
    select h.host_id into v_host_id from sync.hosts h where h.url = p_pds_url;
  end if;
  v_is_late := coalesce(v_repo.stale_since > v_as_of, false);
  update sync_priv.account_checks c set has_second_look = false
   where c.repo_id = v_repo.repo_id and c.has_second_look and not v_is_late;
  v_is_again := case when coalesce(p_handle, 'handle.invalid') = 'handle.invalid'
                     then found or v_repo.pds_url is null
                     else found and v_is_same end;
  update sync.fetch_queue q set host_id = v_host_id
   where q.repo_id = v_repo.repo_id and q.host_id <> v_host_id;
  if v_repo.tracked_by = 'did' and (v_repo.pds_url <> p_pds_url or not v_repo.is_active) then
    perform sync_priv.open_checks(array[v_repo.repo_id]);
  end if;
  if v_is_moved and (v_repo.signing_key is not null or v_repo.pds_url is not null) then
    v_serial := sync_priv.next_signer_serial();  -- others wait for whoever holds it
  end if;
  update sync.repos r
     set handle = p_handle, pds_url = p_pds_url, signing_key = p_signing_key,
         signer_serial = coalesce(v_serial, r.signer_serial),
         host_id = v_host_id, is_identity_stale = v_is_again or v_is_late,
         identity_checked_at = case when v_is_late then r.identity_checked_at
                                    else sync_priv.clock() end,
         identity_as_of = v_as_of,
         sync_state = case
           when v_is_moved and (r.sync_state = 'synchronized' and r.rejected_at is not null
                                or r.sync_state = 'fetching'
                                   and r.rejected_at >= r.fetch_started_at)
             then 'desynchronized'
           else r.sync_state
         end,
         rejected_at = case when v_is_moved then null else r.rejected_at end,
         next_fetch_at = case when v_is_moved then least(r.next_fetch_at, sync_priv.clock())
                              else r.next_fetch_at end
   where r.repo_id = v_repo.repo_id;
  perform pg_notify('sync_work', '');
  return true;
end
$$;
comment on function sync.set_identity(text, text, text, text, interval) is
  'Store handle, PDS and signing key (did:key) of a did, looked up p_age ago; false when unknown or
locked right now.';
