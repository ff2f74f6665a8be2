-- Page through the repos that claim to be current.
--
-- Called by: gap repair.
create or replace function sync.list_heads(p_after bigint, p_limit int)
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
     and (r.sync_state = 'synchronized' or not r.is_active)
   order by r.repo_id
   limit p_limit
$$;
comment on function sync.list_heads(bigint, int) is
  'Up to p_limit tracked repos after repo_id p_after that are synchronized or not active, with revs.';
