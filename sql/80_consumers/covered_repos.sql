-- The repos of a did filter, tombstones too, in order; null for "every one".
--
-- Called by: sync.read_changes(), sync.replay().
create or replace function sync_priv.covered_repos(p_dids text[])
  returns bigint[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case when p_dids is not null then array(
    select r.repo_id from sync.repos r where r.did = any (p_dids) order by r.repo_id) end
$$;
comment on function sync_priv.covered_repos(text[]) is
  'Ids of the repos of p_dids in order; null when p_dids is null.';
