-- Which DIDs have to be looked up again, the longest waiting first; each at most once a minute.
--
-- Called by: the service's resolver task.
-- Locks: the repos' rows, skip locked.
create or replace function sync.claim_identities(p_limit int)
  returns table (did text, handle text, pds_url text, signing_key text)
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.repos r
     set identity_checked_at = sync_priv.clock()
   where r.repo_id = any (array(
           select s.repo_id
             from sync.repos s
            where s.tracked_by = 'did' and s.is_identity_stale
              and (s.identity_checked_at is null
                   or s.identity_checked_at < sync_priv.clock() - interval '1 minute')
            order by s.identity_checked_at nulls first, s.repo_id
            limit p_limit
              for no key update skip locked))
  returning r.did, r.handle, r.pds_url, r.signing_key
$$;
comment on function sync.claim_identities(int) is
  'Up to p_limit tracked repos whose identity is stale, with what is known of it.';
