-- Decide which staged repos may be reconciled, under their locks.
--
-- The caller declares what it staged. A crash of the staging connection empties the stage, and
-- an empty stage must not read as "delete everything": so the counts have to agree, and an
-- empty repo is one declared to be empty. A repo whose row is locked is handed back, one whose
-- generation or token is over is superseded (BF-13), and an export below the head is stale
-- (BF-12).
--
-- Called by: sync.diff_repos(), sync.reconcile_repos().
-- Locks: the repos (no key update, skip locked) in repo_id order, before anything is compared.
create or replace function sync_priv.judge_stage(
    p_repo_ids bigint[], p_record_counts bigint[], p_data_cids bytea[])
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
begin
  perform sync_priv.require_stage();
  v_locked := array(select r.repo_id from sync.repos r where r.repo_id = any (p_repo_ids)
                     order by r.repo_id for no key update skip locked);
  update pg_temp.stage_repos s
     set is_keyed = coalesce(n.is_keyed, false),
         outcome = case
           when r.repo_id <> all (v_locked) then 'busy'
           when r.sync_state <> 'fetching' or r.tracked_by is null or not r.is_active
                or (r.generation, r.fetch_token) is distinct from (s.generation, s.fetch_token)
                or s.fetch_token < (select f.first_token from sync_priv.fetch_state f)
             then 'superseded'
           when d.data_cid is distinct from s.data_cid
                or d.record_count is distinct from coalesce(n.records, 0) then 'mismatch'
           when s.rev < h.rev or (s.rev = h.rev and s.data_cid <> h.data_cid)
             then 'stale_export'
           when s.trust = 'unsigned' and r.tracked_by = 'did' then 'unsigned'
           else 'ok'
         end
    from sync.repos r
    join sync.heads h using (repo_id)
    left join unnest(p_repo_ids, p_record_counts, p_data_cids)
      as d (repo_id, record_count, data_cid) using (repo_id)
    left join (
      select k.repo_id, not bool_and(k.is_whole) as is_keyed,
             case when bool_and(k.is_whole) then count(*)
                  else count(*) filter (where not k.is_whole) end as records
        from pg_temp.stage_records k
       group by k.repo_id
    ) n using (repo_id)
   where r.repo_id = s.repo_id;
end
$$;
comment on function sync_priv.judge_stage(bigint[], bigint[], bytea[]) is
  'Set the outcome of every row of pg_temp.stage_repos: ok, or why it is refused.';
