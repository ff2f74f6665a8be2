-- Track repos: they are fetched, verified and kept current from now on.
--
-- Idempotent: a repo that is tracked already is left alone. A tombstone comes back to life and
-- is fetched once what was purged is gone; what upstream last said of its account is forgotten,
-- for nobody has listened since. Without any collection filter, '*' is added.
--
-- Called by: operators and apps.
-- Locks: the filter state, then the repos' rows in repo_id order.
-- Raises: SY002 for a malformed did, SY107 when records become visible at another level than
-- READ COMMITTED.
create or replace function sync.track_repos(p_dids text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_generation bigint;
  v_count      bigint;
begin
  perform sync_priv.check_dids(p_dids);
  if not exists (select from unnest(p_dids) as d (did)
                  where not exists (select from sync.repos r
                                     where r.did = d.did and r.tracked_by = 'did')) then
    return 0;
  end if;
  v_generation := sync_priv.next_filter_generation();
  if not exists (select from sync.filters f where f.kind = 'collection') then
    insert into sync.filters (kind, pattern, generation, created_at)
    values ('collection', '*', v_generation, sync_priv.clock());
  end if;
  insert into sync.filters (kind, pattern, generation, created_at)
  select distinct 'did', d.did, v_generation, sync_priv.clock() from unnest(p_dids) as d (did)
      on conflict (kind, pattern) do nothing;
  perform from sync.repos r
    where r.did = any (p_dids) and r.tracked_by is distinct from 'did'
    order by r.repo_id for no key update;
  -- An unsigned import proves nothing: its head gives way, its records to the verified diff.
  update sync.heads h
     set rev = null, data_cid = null, commit_block = null, seen_rev = null, trust = 'verified'
    from sync.repos r
   where r.did = any (p_dids) and r.tracked_by = 'import' and h.repo_id = r.repo_id
     and h.trust = 'unsigned';
  with tracked as (
    insert into sync.repos as r
      (did, tracked_by, filter_generation, next_fetch_at, created_at, updated_at)
    select distinct d.did, 'did', v_generation, sync_priv.clock(), sync_priv.clock(),
           sync_priv.clock()
      from unnest(p_dids) as d (did)
     where not exists (select from sync.repos t where t.did = d.did and t.tracked_by = 'did')
     order by d.did
        on conflict (did) do update
       set tracked_by = 'did', sync_state = 'pending', filter_generation = v_generation,
           is_identity_stale = true, stale_since = sync_priv.clock(),
           next_fetch_at = excluded.next_fetch_at,
           error = null, attempts = 0,
           is_active = r.is_active or r.tracked_by is null,
           account_status = case when r.tracked_by is not null then r.account_status end
     where r.tracked_by is distinct from 'did'
    returning r.repo_id
  ), headed as (
    insert into sync.heads (repo_id) select t.repo_id from tracked t on conflict do nothing
  )
  select count(*) into v_count from tracked;
  return v_count;
end
$$;
comment on function sync.track_repos(text[]) is
  'Track the repos of p_dids; returns how many were not tracked before. Raises SY002, SY107.';
