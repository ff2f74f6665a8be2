-- Take repos whose chain broke out of `synchronized`, and count why.
--
-- Each break costs a minute of the repo's budget, and ten may come at once: whoever signs one
-- broken commit after the other is not fetched after each of them (D-03: throttled).
--
-- Called by: sync_priv.walk_chain().
create or replace function sync_priv.break_chains(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  with broken as (
    select distinct on (w.repo_id) w.repo_id, coalesce(w.reason, case w.kind
             when 'sync' then 'sync_differs' else 'chain_break' end) as reason
      from pg_temp.walk w
     where w.run = p_run and w.outcome = 'broken'
     order by w.repo_id, w.pos
  ), noted as (
    insert into sync_priv.problem_deltas (reason, host, did, events, noted_at)
    select b.reason, '', r.did, 1, sync_priv.clock()
      from broken b join sync.repos r using (repo_id)
  )
  update sync.repos r
     set sync_state = 'desynchronized', error = b.reason,
         budget_at = greatest(r.budget_at, sync_priv.clock()) + interval '1 minute',
         next_fetch_at = greatest(r.budget_at - interval '9 minutes', sync_priv.clock())
    from broken b
   where r.repo_id = b.repo_id;
  if found then
    perform pg_notify('sync_work', '');
  end if;
end
$$;
comment on function sync_priv.break_chains(bigint) is
  'Desynchronize the repos with a broken chain in one run of pg_temp.walk.';
