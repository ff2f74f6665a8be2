-- Keep a lexicon that was found on the network and verified, for the views that are made later.
--
-- Called by: `standpipe view add`, `standpipe view refresh`.
-- Raises: SY002 when p_nsid is no NSID, p_did no DID or p_cid no CID.
create or replace function sync.put_lexicon(p_nsid text, p_lexicon jsonb, p_did text, p_cid text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.collection_for(p_nsid);
  perform sync_priv.check_dids(array[p_did]);
  if p_lexicon is null or sync_priv.cid_bytes(p_cid) is null then
    raise exception 'not a lexicon with the CID of its record: %',
        coalesce(left(p_cid, 100), 'null') using errcode = 'SY002';
  end if;
  perform sync_priv.store_lexicon(p_nsid, p_lexicon, p_did, p_cid);
end
$$;
comment on function sync.put_lexicon(text, jsonb, text, text) is
  'Keep the lexicon of p_nsid, the record p_cid in the repo p_did. Raises SY002.';
