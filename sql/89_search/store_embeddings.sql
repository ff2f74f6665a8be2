-- Write embeddings beside their texts where these are still the same, and return how many were. A
-- row that somebody else has locked is about to change: it waits on, and comes again.
--
-- p_embeddings holds one after the other, all of the search's length.
--
-- Idempotent.
--
-- Called by: the service.
-- Locks: the rows, skip locked.
create or replace function sync.store_embeddings(
    p_name text, p_dids text[], p_rkeys text[], p_texts text[], p_embeddings real[])
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_length int := cardinality(p_embeddings) / nullif(cardinality(p_dids), 0);
  v_count  bigint;
begin
  execute format($q$
    with given as (
      select * from unnest($1, $2, $3) with ordinality as g (did, rkey, text, place)
    ), same as materialized (
      select t.did, t.rkey, g.place
        from sync_search.%1$I t
        join given g on (g.did, g.rkey, g.text) = (t.did, t.rkey, t.text)
       where t.embedding is null and t.error is null
         for no key update of t skip locked
    )
    update sync_search.%1$I t
       set embedding = $4[(s.place - 1) * $5 + 1 : s.place * $5]::%2$I.vector
      from same s
     where (s.did, s.rkey) = (t.did, t.rkey)
  $q$, p_name, sync_priv.vector_schema())
    using p_dids, p_rkeys, p_texts, p_embeddings, v_length;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function sync.store_embeddings(text, text[], text[], text[], real[]) is
  'Write embeddings of search p_name where the texts are still the same; returns how many were.';
