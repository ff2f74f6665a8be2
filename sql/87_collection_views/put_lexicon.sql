-- Keep a lexicon that was found on the network and verified, for the views that are made later.
--
-- Called by: `standpipe view add`, `standpipe view refresh`.
-- Raises: SY002 when p_nsid is no NSID.
create or replace function sync.put_lexicon(
    p_nsid text, p_lexicon jsonb, p_did text default null, p_cid text default null)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.collection_for(p_nsid);
  perform sync_priv.store_lexicon(p_nsid, p_lexicon, p_did, p_cid);
end
$$;
comment on function sync.put_lexicon(text, jsonb, text, text) is
  'Keep the lexicon of p_nsid, the record p_cid in the repo p_did. Raises SY002.';
