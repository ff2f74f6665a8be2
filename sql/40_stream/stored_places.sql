-- Which of some keys have a record: their places in the arrays.
--
-- Every key is looked up in the index, in any plan. Where keys and records are joined as a planner
-- likes best, it may read all that is stored, in a plan that was made while that was little, and is
-- kept by the session.
--
-- Called by: sync_priv.apply_ops().
create or replace function sync_priv.stored_places(
    p_repo_ids bigint[], p_collection_ids int[], p_rkeys text[])
  returns setof bigint
  language sql
  stable
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set jit = off
as $$
  select u.place
    from unnest(p_repo_ids, p_collection_ids, p_rkeys)
           with ordinality as u (repo_id, collection_id, rkey, place)
    join sync.stored_records s
      on (s.repo_id, s.collection_id, s.rkey)
         = (u.repo_id, u.collection_id, u.rkey collate "C")
$$;
comment on function sync_priv.stored_places(bigint[], int[], text[]) is
  'The places (from 1) of those keys that have a stored record.';
