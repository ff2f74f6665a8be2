-- Which collections have rows, repo by repo: one index probe a collection, not a scan.
--
-- Called by: sync_priv.log_visibility(), sync_priv.fill_diff().
create or replace function sync_priv.present_collections(p_repo_ids bigint[])
  returns table (repo_id bigint, collection_id int)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with recursive present as (
    select r.repo_id, (select min(s.collection_id) from sync.stored_records s
                        where s.repo_id = r.repo_id) as collection_id
      from unnest(p_repo_ids) as r (repo_id)
    union all
    select p.repo_id, (select min(s.collection_id) from sync.stored_records s
                        where s.repo_id = p.repo_id and s.collection_id > p.collection_id)
      from present p
     where p.collection_id is not null
  )
  select p.repo_id, p.collection_id from present p where p.collection_id is not null
$$;
comment on function sync_priv.present_collections(bigint[]) is
  'The (repo, collection) pairs of the given repos that have stored records.';
