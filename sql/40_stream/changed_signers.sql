-- What a lane must learn so that nobody's former key or PDS counts any longer.
--
-- Called by: lanes.
create or replace function sync.changed_signers(p_after bigint, p_upto bigint)
  returns table (did text, signing_key text, pds_url text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.did, r.signing_key, r.pds_url
    from sync.repos r
   where r.signer_serial > p_after and r.signer_serial <= p_upto
$$;
comment on function sync.changed_signers(bigint, bigint) is
  'Key and PDS of the repos where one of them changed in the serials (p_after, p_upto].';
