-- The next repos a walk comes to, in order: every row of sync.repos the shard covers, hidden ones
-- and tombstones too, since the reader may hold records of them.
--
-- Called by: sync_priv.walk_frontier().
create or replace function sync_priv.next_repos(
  p_after  bigint,
  p_shards int,
  p_shard  int,
  p_repos  bigint[],
  p_limit  int)
  returns setof bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- Two statements, so that neither has a condition that spoils the other's index.
  if p_repos is null then
    return query
      select r.repo_id from sync.repos r
       where r.repo_id > p_after and r.repo_id % p_shards = p_shard
       order by r.repo_id limit p_limit;
  else
    return query
      select u.repo_id from unnest(p_repos) as u (repo_id)
       where u.repo_id > p_after and u.repo_id % p_shards = p_shard
       order by u.repo_id limit p_limit;
  end if;
end
$$;
comment on function sync_priv.next_repos(bigint, int, int, bigint[], int) is
  'The repos of a shard beyond p_after, in repo_id order.';
