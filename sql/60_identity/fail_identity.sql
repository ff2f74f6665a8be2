-- A lookup failed: keep the old document (IN-16), count it, try again later.
--
-- Called by: the service, after resolving.
create or replace function sync.fail_identity(p_did text, p_reason text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into sync_priv.problem_deltas (reason, host, did, events, noted_at)
  values ('identity_' || p_reason, '', p_did, 1, sync_priv.clock())
$$;
comment on function sync.fail_identity(text, text) is
  'Count a failed lookup of p_did: not_found, tombstoned, transient or malformed.';
