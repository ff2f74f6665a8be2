-- May records of this collection of this repo be shown now? (AC-01, and what is being purged.)
--
-- Called by: sync_priv.walk_rows().
create or replace function sync_priv.is_shown(p_repo_id bigint, p_collection_id int)
  returns boolean
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from sync_priv.visible_repos v where v.repo_id = p_repo_id)
     and not exists (select from sync_priv.purges p
                      where coalesce(p.repo_id, 0) in (0, p_repo_id)
                        and coalesce(p.collection_id, 0) = p_collection_id);
end
$$;
comment on function sync_priv.is_shown(bigint, int) is
  'True when the records of a collection of a repo are visible.';
