-- The next texts of a search that have no embedding yet, in the order of their keys after a
-- given one. Locks nothing: they may change while they are embedded, and who writes back looks.
--
-- Called by: the service, which goes on behind what it was given last, so that the entries that
-- are dead by now are not read again.
create or replace function sync.waiting_texts(
    p_name text, p_after_did text, p_after_rkey text, p_limit int)
  returns table (did text, rkey text, text text)
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format($q$
    select t.did::text, t.rkey::text, t.text from sync_search.%I t
     where t.embedding is null and t.error is null and (t.did, t.rkey) > ($1, $2)
     order by t.did, t.rkey limit $3
  $q$, p_name) using p_after_did, p_after_rkey, p_limit;
end
$$;
comment on function sync.waiting_texts(text, text, text, int) is
  'Texts of search p_name that wait for an embedding, after a key, p_limit at most.';
