-- A lookup failed: keep the old document (IN-16), count it, try again later. A tombstone has the
-- account's standing asked, which looks the DID up once more before anything goes (IN-14).
--
-- The longer nothing good was heard of a DID, the later: at most an hour from now, for many never
-- come back, and they would have the directory asked about each of them every minute (IN-12). Only
-- when the directory itself is away its DIDs are tried again soon. What the stream says meanwhile
-- has a DID looked up at once, as ever.
--
-- Called by: the service, after resolving.
-- Locks: the repo's row, skip locked (a locked one is looked up again).
create or replace function sync.fail_identity(p_did text, p_reason text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into sync_priv.problem_deltas (reason, host, did, events, noted_at)
  values ('identity_' || p_reason, '', p_did, 1, sync_priv.clock());
  if p_reason = 'tombstoned' then
    perform sync_priv.open_checks(array(
      select r.repo_id from sync.repos r
       where r.did = p_did and r.tracked_by = 'did' for no key update skip locked));
  end if;
  update sync.repos r
     set identity_checked_at = sync_priv.clock() + least(interval '59 minutes',
           (sync_priv.clock() - coalesce(r.identity_as_of, r.created_at)) / 20)
   where r.repo_id in (select s.repo_id from sync.repos s
                        where s.did = p_did and s.identity_checked_at <= sync_priv.clock()
                          for no key update skip locked)
     and (p_reason <> 'transient' or p_did like 'did:web:%');
end
$$;
comment on function sync.fail_identity(text, text) is
  'Count a failed lookup of p_did: not_found, tombstoned, transient or malformed.';
