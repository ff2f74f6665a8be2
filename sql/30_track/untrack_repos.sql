-- Stop tracking repos: their records are hidden at once and deleted in chunks; the rows of
-- sync.repos stay as tombstones, so that a late commit is still refused (AC-03, D-15).
--
-- Idempotent: what is not tracked is left alone.
--
-- Called by: operators and apps.
-- Locks: the filter state, then the repos' rows in repo_id order.
create or replace function sync.untrack_repos(p_dids text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_generation bigint;
  v_ids        bigint[];
begin
  v_generation := sync_priv.next_filter_generation();
  delete from sync.filters f where f.kind = 'did' and f.pattern = any (p_dids);
  perform from sync.repos r where r.did = any (p_dids) order by r.repo_id for no key update;
  select array_agg(r.repo_id) into v_ids
    from sync.repos r where r.did = any (p_dids) and r.tracked_by is not null;
  update sync.repos r
     set tracked_by = null, sync_state = 'pending', filter_generation = v_generation,
         error = null, attempts = 0
   where r.repo_id = any (v_ids);
  perform sync_priv.empty_repos(v_ids);
  return coalesce(cardinality(v_ids), 0);
end
$$;
comment on function sync.untrack_repos(text[]) is
  'Stop tracking the repos of p_dids and purge their records; returns how many were tracked.';
