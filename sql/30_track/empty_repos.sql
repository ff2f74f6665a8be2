-- Have the records of locked repos deleted, and forget their heads (D-15, Z-15): what was purged
-- is nothing that a later commit or export could continue.
--
-- The repos were hidden before, so the log has their `purge` already; the purges' rows come after
-- it, since a repo that is on its way out is not logged again.
--
-- Called by: sync.untrack_repos(), sync.answer_check().
-- Locks: the caller holds the repos' rows.
create or replace function sync_priv.empty_repos(p_repo_ids bigint[])
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into sync_priv.purges (repo_id, started_at)
  select i, sync_priv.clock() from unnest(p_repo_ids) as u (i) on conflict do nothing;
  update sync.heads h
     set rev = null, data_cid = null, commit_block = null, seen_rev = null, trust = 'verified'
   where h.repo_id = any (p_repo_ids);
  delete from sync.fetch_queue q where q.repo_id = any (p_repo_ids);
  delete from sync_priv.held_events e where e.repo_id = any (p_repo_ids);
end
$$;
comment on function sync_priv.empty_repos(bigint[]) is
  'Begin to purge hidden repos and forget their heads and what waits for them.';
