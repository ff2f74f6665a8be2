-- Walk the events of locked repos: held ones first, then those that p_source_id has staged.
--
-- Commits and syncs are judged as chains, in sets. Account and identity events between them
-- change what the next commit meets, so each repo's events fall into runs that alternate
-- between the two, and the loop below goes over the runs, not over events: nearly always once.
-- Statuses count in the order of arrival, commits by rev: what one source tells early falls into
-- place once another has told what comes before (CU-16). Of one rev a good commit comes first.
--
-- Called by: sync.apply_events(), sync.reconcile_repos(), sync.fail_fetch().
-- Locks: the caller holds the rows of p_repo_ids.
create or replace function sync_priv.walk_events(p_repo_ids bigint[], p_source_id int default null)
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
    (repo_id, pos, run, is_staged, event_key, source_id, kind, rev, since, prev_data, data_cid,
     is_active, status, reason)
  select n.repo_id,
         row_number() over (partition by n.repo_id
                            order by n.run, case when n.is_chain then n.rev end, n.kind = 'broken',
                                     n.is_staged, n.event_key),
         n.run, n.is_staged, n.event_key, n.source_id, n.kind, n.rev, n.since, n.prev_data,
         n.data_cid, n.is_active, n.status, n.reason
    from (
      select p.*, count(*) filter (where p.is_chain is distinct from p.was_chain)
                    over (partition by p.repo_id order by p.is_staged, p.event_key) as run
        from (
          select a.*, a.kind in ('commit', 'sync', 'broken') as is_chain,
                 lag(a.kind in ('commit', 'sync', 'broken')) over
                   (partition by a.repo_id order by a.is_staged, a.event_key) as was_chain
            from (
              select h.repo_id, false as is_staged, h.held_id as event_key, h.source_id, h.kind,
                     h.rev, h.since, h.prev_data, h.data_cid, h.is_active, h.status, h.reason
                from sync_priv.held_of(p_repo_ids) h
              union all
              select r.repo_id, true, s.event_no, p_source_id, s.kind, s.rev, s.since,
                     s.prev_data, s.data_cid, s.is_active, s.status, s.reason
                from pg_temp.stage_events s
                join sync.repos r using (did)
               where p_source_id is not null and r.repo_id = any (p_repo_ids)
            ) a
        ) p
    ) n;
  get diagnostics v_count = row_count;
  -- The planner knows nothing of a fresh temporary table; worth telling it about a large one.
  if v_count > 100 then
    analyze pg_temp.walk;
  end if;
  for v_run in select distinct w.run from pg_temp.walk w where w.outcome is null order by 1 loop
    perform sync_priv.walk_statuses(v_run);
    perform sync_priv.walk_chain(v_run, p_source_id is not null);
  end loop;
  perform sync_priv.hold_events();
  return query
    select w.outcome, count(*)
      from pg_temp.walk w
     where w.repo_id = any (p_repo_ids)
     group by w.outcome;
end
$$;
comment on function sync_priv.walk_events(bigint[], int) is
  'Walk the held events of locked repos, and those a source has staged (null: none); returns how many
had which outcome.';
