-- After a crash or a restore: whatever was being fetched is fetched again (BF-14). What was held
-- stays and is walked at the next chance.
--
-- Called by: the service at its start, when it alone fetches.
create or replace function sync.recover_fetches()
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
begin
  with recovered as (
    update sync.repos r
       set sync_state = 'desynchronized', next_fetch_at = sync_priv.clock()
     where r.sync_state = 'fetching'
    returning r.repo_id
  ), due as (
    update sync_priv.held_events h
       set is_due = true
      from recovered v
     where h.repo_id = v.repo_id and not h.is_due
  )
  select count(*) into v_count from recovered;
  return v_count;
end
$$;
comment on function sync.recover_fetches() is
  'Put every repo whose fetch was interrupted back in line; returns how many.';
