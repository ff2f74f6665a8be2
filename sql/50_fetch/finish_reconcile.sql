-- Move the heads, walk what was held, and decide in which state each repo ends.
--
-- Called by: sync.reconcile_repos().
-- Locks: the heads; the hosts that failed before, skip locked: an app that idles on one must not
-- stop its fetchers.
create or replace function sync_priv.finish_reconcile()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync.heads h
     set rev = s.rev, data_cid = s.data_cid, commit_block = s.commit_block, trust = s.trust,
         seen_rev = greatest(h.seen_rev, s.rev)
    from pg_temp.stage_repos s
   where s.outcome = 'ok' and h.repo_id = s.repo_id;
  update sync.repos r
     set sync_state = 'synchronized', error = null, synchronized_at = sync_priv.clock()
    from pg_temp.stage_repos s
   where s.outcome = 'ok' and r.repo_id = s.repo_id;
  -- An export older than what we have, or unfit, changes nothing; the fetch is over all the same.
  update sync.repos r
     set sync_state = 'desynchronized', error = s.outcome
    from pg_temp.stage_repos s
   where s.outcome in ('stale_export', 'unsigned', 'mismatch') and r.repo_id = s.repo_id
     and r.sync_state = 'fetching';
  perform sync_priv.walk_events(
    array(select s.repo_id from pg_temp.stage_repos s
           where s.outcome not in ('busy', 'superseded')));
  update sync.repos r
     set sync_state = 'desynchronized', error = 'stale_export'
    from pg_temp.stage_repos s
    join sync.heads h using (repo_id)
   where s.outcome = 'ok' and r.repo_id = s.repo_id and r.sync_state = 'synchronized'
     and h.rev < h.seen_rev;
  update sync.repos r
     set attempts = case r.sync_state when 'synchronized' then 0 else r.attempts + 1 end,
         next_fetch_at = case r.sync_state when 'synchronized' then r.next_fetch_at
                         else sync_priv.clock() + sync_priv.backoff(r.attempts + 1) end
    from pg_temp.stage_repos s
   where s.outcome not in ('busy', 'superseded') and r.repo_id = s.repo_id;
  -- What came from a file says nothing of what was sent since it was written.
  update sync.repos r
     set sync_state = 'desynchronized', next_fetch_at = sync_priv.clock()
    from pg_temp.stage_repos s
   where s.outcome = 'ok' and r.repo_id = s.repo_id and r.sync_state = 'synchronized'
     and r.tracked_by = 'did' and r.fetch_started_at is null;
  if found then
    perform pg_notify('sync_work', '');
  end if;
  update sync.hosts h
     set failures = 0, last_error = null
   where h.host_id in (
           select l.host_id
             from sync.hosts l
            where l.failures > 0
              and l.host_id in (select r.host_id
                                  from sync.repos r
                                  join pg_temp.stage_repos s using (repo_id)
                                 where s.outcome = 'ok')
              for no key update skip locked);
end
$$;
comment on function sync_priv.finish_reconcile() is
  'Set heads and states after the records of the staged repos are written.';
