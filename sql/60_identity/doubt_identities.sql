-- Have DIDs looked up again: an #identity event about them may have been missed.
--
-- Idempotent. Hints of the stream go first, and each DID is still asked about at most once a
-- minute (sync.claim_identities).
--
-- Called by: gap repair.
-- Locks: the repos (no key update, skip locked; a busy one hears of a new key by its signature).
create or replace function sync.doubt_identities(p_dids text[])
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.repos r
     set is_identity_stale = true, stale_since = sync_priv.clock()
   where r.repo_id in (select s.repo_id from sync.repos s
                        where s.did = any (p_dids) and s.tracked_by = 'did'
                        order by s.repo_id
                          for no key update skip locked)
$$;
comment on function sync.doubt_identities(text[]) is
  'Have the identities of some tracked dids looked up again, as after a gap.';
