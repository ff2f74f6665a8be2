-- Keep a lexicon that was given, or found in the repo p_did as the record p_cid.
--
-- Called by: sync.create_view(), sync.put_lexicon().
create or replace function sync_priv.store_lexicon(
    p_nsid text, p_lexicon jsonb, p_did text default null, p_cid text default null)
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  insert into sync.lexicons as l (nsid, lexicon, did, cid, stored_at)
  values (p_nsid, p_lexicon, p_did, sync_priv.cid_bytes(p_cid), sync_priv.clock())
      on conflict (nsid) do update
     set lexicon = excluded.lexicon, did = excluded.did, cid = excluded.cid,
         stored_at = excluded.stored_at
   where (l.lexicon, l.did, l.cid)
         is distinct from (excluded.lexicon, excluded.did, excluded.cid)
$$;
comment on function sync_priv.store_lexicon(text, jsonb, text, text) is
  'Keep the lexicon of p_nsid in place of another.';
