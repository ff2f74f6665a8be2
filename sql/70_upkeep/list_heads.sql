-- Page through the repos that claim to be current, and those whose account is not active.
--
-- A repo whose fetch began behind the gap lacks nothing of it; asking about it would only race
-- with its live commits. One whose fetch began before and still runs is about to claim to be
-- current: sync.report_revs() has it reported again until that is over.
--
-- Called by: gap repair.
create or replace function sync.list_heads(
    p_after bigint, p_limit int, p_fetched_before timestamptz default null)
  returns table (repo_id bigint, did text, pds_url text, rev text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.repo_id, r.did, r.pds_url, h.rev
    from sync.repos r
    join sync.heads h using (repo_id)
   where r.repo_id > p_after and r.tracked_by = 'did'
     and (not r.is_active
          or r.sync_state = 'synchronized'
             and coalesce(r.fetch_started_at < p_fetched_before, true)
          or r.sync_state = 'fetching' and r.fetch_started_at < p_fetched_before)
   order by r.repo_id
   limit p_limit
$$;
comment on function sync.list_heads(bigint, int, timestamptz) is
  'Up to p_limit tracked repos after repo_id p_after that are not active, or synchronized by a fetch that
began before p_fetched_before (null: whenever), or still in such a fetch, with revs.';
