-- Judge one run of commits and syncs, and apply the valid prefix of every chain.
--
-- A repo that is fetched holds its events; one that waits for a fetch, or is not active, drops
-- them, since the fetch brings more (BF-03, AC-02). In a synchronized repo an event is stale
-- when its rev is not the newest (CM-15); of the others each must continue its predecessor, the
-- first the head: a commit by `since` and `prev_data` (CM-17, CM-18; without prev_data it cannot:
-- CM-19), a sync by equal `data` (SN-07). What is signed but wrong continues nothing (D-03). From
-- the first break on nothing is applied and the repo is fetched again (FA-06), unless p_may_wait
-- and another source may still tell what is missing.
--
-- Called by: sync_priv.walk_events().
create or replace function sync_priv.walk_chain(p_run bigint, p_may_wait boolean)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  with placed as (
    select w.repo_id, w.pos, w.kind, w.rev, w.since, w.prev_data, w.data_cid,
           r.sync_state, r.is_active, h.rev as head_rev, h.data_cid as head_data,
           r.sync_state = 'synchronized' and r.is_active and w.rev > h.rev
             and w.rev > coalesce(max(w.rev) over earlier, '') as is_fresh
      from pg_temp.walk w
      join sync.repos r using (repo_id)
      join sync.heads h using (repo_id)
     where w.run = p_run and w.kind in ('commit', 'sync', 'broken')
    window earlier as (partition by w.repo_id order by w.pos
                       rows between unbounded preceding and 1 preceding)
  ), linked as (
    -- Fresh events make a partition of their own, so that each meets its fresh predecessor.
    select p.*,
           coalesce(lag(p.rev) over chain, p.head_rev) as before_rev,
           coalesce(lag(p.data_cid) over chain, p.head_data) as before_data
      from placed p
    window chain as (partition by p.repo_id, p.is_fresh order by p.pos)
  ), judged as (
    select l.repo_id, l.pos, l.sync_state, l.is_active, l.is_fresh,
           bool_and(case l.kind
                      when 'commit' then l.since is not distinct from l.before_rev
                                     and l.prev_data is not distinct from l.before_data
                      when 'sync' then l.data_cid = l.before_data
                      else false
                    end) over (partition by l.repo_id, l.is_fresh order by l.pos) as continues
      from linked l
  )
  update pg_temp.walk w
     set outcome = case
           when j.sync_state = 'fetching' and j.is_active then 'held'
           when j.sync_state <> 'synchronized' or not j.is_active then 'dropped'
           when not j.is_fresh then 'stale'
           when j.continues then 'applied'
           else 'broken'
         end
    from judged j
   where w.repo_id = j.repo_id and w.pos = j.pos;
  if exists (select from pg_temp.walk w where w.run = p_run and w.outcome = 'applied') then
    perform sync_priv.apply_ops(p_run);
  end if;
  if exists (select from pg_temp.walk w where w.run = p_run and w.outcome = 'broken') then
    if p_may_wait then
      perform sync_priv.await_sources(p_run);
    end if;
    perform sync_priv.break_chains(p_run);
  end if;
  -- An authentic rev, applied or not, is one the account has had (BF-11).
  update sync.heads h
     set seen_rev = s.rev
    from (select w.repo_id, max(w.rev) as rev
            from pg_temp.walk w
           where w.run = p_run and w.outcome in ('applied', 'held', 'dropped', 'broken')
           group by w.repo_id) s
   where h.repo_id = s.repo_id and s.rev > coalesce(h.seen_rev, '');
end
$$;
comment on function sync_priv.walk_chain(bigint, boolean) is
  'Judge and apply the commits and syncs of one run of pg_temp.walk.';
