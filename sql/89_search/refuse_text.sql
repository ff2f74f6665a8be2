-- Leave a text without an embedding, as the embedder takes others but not this one. It is asked
-- for again when it changes.
--
-- Idempotent.
--
-- Called by: the service.
-- Locks: the row, skip locked.
create or replace function sync.refuse_text(
    p_name text, p_did text, p_rkey text, p_text text, p_error text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format($q$
    with same as materialized (
      select t.did, t.rkey from sync_search.%1$I t
       where (t.did, t.rkey, t.text) = ($1, $2, $3) and t.embedding is null
         for no key update skip locked
    )
    update sync_search.%1$I t set error = left($4, 500)
      from same s where (s.did, s.rkey) = (t.did, t.rkey)
  $q$, p_name) using p_did, p_rkey, p_text, p_error;
end
$$;
comment on function sync.refuse_text(text, text, text, text, text) is
  'Note why a text of search p_name gets no embedding.';
