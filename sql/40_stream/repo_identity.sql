-- What we know of the identity of some repos.
--
-- Called by: lanes, to check signatures.
create or replace function sync.repo_identity(p_dids text[])
  returns table (did text, signing_key text, pds_url text, handle text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.did, r.signing_key, r.pds_url, r.handle from sync.repos r where r.did = any (p_dids)
$$;
comment on function sync.repo_identity(text[]) is
  'Signing key, PDS and handle as last resolved, of the repos of p_dids.';
