-- Make the stored records of some repos what their verified exports say, deletes included, and
-- continue with the events held meanwhile. Everything in the caller's transaction.
--
-- A repo ends `synchronized` only if its head has reached every authentic rev we have seen and
-- nothing is held; else the export was stale and it is fetched again, with backoff (D-19).
-- Idempotent: the claim is spent; a repetition is `superseded`.
--
-- Called by: fetchers and `standpipe import`.
-- Locks: see sync_priv.judge_stage().
-- Raises: SY201 when needed contents were not staged; SY102.
create or replace function sync.reconcile_repos(
    p_repo_ids bigint[], p_record_counts bigint[], p_data_cids bytea[])
  returns table (repo_id bigint, outcome text, created bigint, updated bigint, deleted bigint)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.require_stage();
  -- After sync.diff_repos() in this transaction the verdicts stand: the rows are locked.
  if not exists (select from pg_temp.stage_repos s where s.outcome is not null) then
    perform sync_priv.judge_stage(p_repo_ids, p_record_counts, p_data_cids);
    perform sync_priv.fill_diff();
  end if;
  perform sync_priv.load_first();
  perform sync_priv.apply_diff();
  perform sync_priv.finish_reconcile();
  return query
    select d.repo_id,
           case s.outcome when 'ok' then r.sync_state else coalesce(s.outcome, 'mismatch') end,
           coalesce(n.created, 0) + coalesce(f.loaded, 0), coalesce(n.updated, 0),
           coalesce(n.deleted, 0)
      from unnest(p_repo_ids) as d (repo_id)
      join sync.repos r using (repo_id)
      left join pg_temp.stage_repos s using (repo_id)
      left join (
        select x.repo_id, count(*) filter (where x.action = 'create') as created,
               count(*) filter (where x.action = 'update') as updated,
               count(*) filter (where x.action = 'delete') as deleted
          from pg_temp.diff x
         group by x.repo_id
      ) n using (repo_id)
      left join (
        select l.repo_id, count(*) as loaded
          from pg_temp.first_loads l
          join sync.collections c using (collection_id)
          join pg_temp.stage_records k
            on (k.repo_id, k.collection) = (l.repo_id, c.nsid) and k.is_whole
         group by l.repo_id
      ) f using (repo_id);
end
$$;
comment on function sync.reconcile_repos(bigint[], bigint[], bytea[]) is
  'Reconcile staged repos. Outcome of each: synchronized, desynchronized (a held event did not chain,
or the export was older than what we have seen), busy (locked: try again), superseded, stale_export,
unsigned, mismatch; and how many records were created, updated, deleted. Raises SY201, SY102.';
