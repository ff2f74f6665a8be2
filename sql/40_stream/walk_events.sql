-- Walk the events of locked repos in arrival order: held ones first, then staged ones.
--
-- Commits and syncs are judged as chains, in sets. Account and identity events between them
-- change what the next commit meets, so each repo's events fall into runs that alternate
-- between the two, and the loop below goes over the runs, not over events: nearly always once.
--
-- Called by: sync.apply_events(), sync.reconcile_repos(), sync.fail_fetch().
-- Locks: the caller holds the rows of p_repo_ids.
create or replace function sync_priv.walk_events(p_repo_ids bigint[], p_with_stage boolean)
  returns table (outcome text, events bigint)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_run   bigint;
  v_count bigint;
begin
  delete from pg_temp.walk;
  insert into pg_temp.walk
    (repo_id, pos, run, is_staged, event_key, kind, rev, since, prev_data, data_cid, is_active,
     status, reason)
  select p.repo_id, p.pos, count(*) filter (where p.is_chain is distinct from p.was_chain) over
           (partition by p.repo_id order by p.pos), p.is_staged, p.event_key,
         p.kind, p.rev, p.since, p.prev_data, p.data_cid, p.is_active, p.status, p.reason
    from (
      select a.*, row_number() over arrival as pos,
             a.kind in ('commit', 'sync', 'broken') as is_chain,
             lag(a.kind in ('commit', 'sync', 'broken')) over arrival as was_chain
        from (
          select h.repo_id, false as is_staged, h.held_id as event_key, h.kind, h.rev, h.since,
                 h.prev_data, h.data_cid, h.is_active, h.status, h.reason
            from sync_priv.held_of(p_repo_ids) h
          union all
          select r.repo_id, true, s.event_no, s.kind, s.rev, s.since, s.prev_data, s.data_cid,
                 s.is_active, s.status, s.reason
            from pg_temp.stage_events s
            join sync.repos r using (did)
           where p_with_stage and r.repo_id = any (p_repo_ids)
        ) a
      window arrival as (partition by a.repo_id order by a.is_staged, a.event_key)
    ) p;
  get diagnostics v_count = row_count;
  -- The planner knows nothing of a fresh temporary table; worth telling it about a large one.
  if v_count > 100 then
    analyze pg_temp.walk;
  end if;
  for v_run in select distinct w.run from pg_temp.walk w where w.outcome is null order by 1 loop
    perform sync_priv.walk_statuses(v_run);
    perform sync_priv.walk_chain(v_run);
  end loop;
  perform sync_priv.hold_events();
  return query
    select w.outcome, count(*)
      from pg_temp.walk w
     where w.repo_id = any (p_repo_ids)
     group by w.outcome;
end
$$;
comment on function sync_priv.walk_events(bigint[], boolean) is
  'Walk the held and staged events of locked repos; returns how many had which outcome.';
