-- Which contents does a reconcile of the staged keys need? Those of records that are new or
-- changed; the others stay where they are (staging keys alone is twice as fast).
--
-- Called by: fetchers, between the COPY of the keys and the COPY of the contents, all in the
-- transaction that calls sync.reconcile_repos().
-- Locks: see sync_priv.judge_stage().
create or replace function sync.diff_repos(
    p_repo_ids bigint[], p_record_counts bigint[], p_data_cids bytea[])
  returns table (repo_id bigint, collection text, rkey text, cid bytea)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.judge_stage(p_repo_ids, p_record_counts, p_data_cids);
  perform sync_priv.fill_diff();
  return query
    select d.repo_id, c.nsid, d.rkey, d.cid
      from pg_temp.diff d
      join sync.collections c using (collection_id)
      join pg_temp.stage_repos t using (repo_id)
     where d.action <> 'delete' and t.is_keyed
    union all
    select s.repo_id, s.collection, s.rkey, s.cid
      from pg_temp.stage_records s
      join sync.collections c on c.nsid = s.collection
      join pg_temp.first_loads f on (f.repo_id, f.collection_id) = (s.repo_id, c.collection_id)
     where not s.is_whole;
end
$$;
comment on function sync.diff_repos(bigint[], bigint[], bytea[]) is
  'The staged records whose contents sync.reconcile_repos() will need. Parallel arrays: repo_id, the
number of records staged, the data CID of the commit. Raises SY102.';
