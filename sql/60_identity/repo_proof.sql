-- What a proof of a stored repo starts from: the signed commit, the key, the filter.
--
-- Called by: `standpipe verify`.
create or replace function sync.repo_proof(p_did text)
  returns table (did text, rev text, data_cid bytea, commit_block bytea, signing_key text,
                 pds_url text, trust text, sync_state text, patterns text[])
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.did, h.rev, h.data_cid, h.commit_block, r.signing_key, r.pds_url, h.trust,
         r.sync_state,
         array(select f.pattern::text from sync.filters f where f.kind = 'collection'
                order by f.pattern)
    from sync.repos r
    join sync.heads h using (repo_id)
   where r.did = p_did and r.tracked_by is not null
$$;
comment on function sync.repo_proof(text) is
  'The stored head of a did with its signed commit, the key it should verify with, and what is tracked.';
