-- A fetch ended without an export: remember why and when to try again.
--
-- The PDS may have said that the account is not active (AC-13): it is asked once more, for the
-- stream may have told since that it is. Or when it wants to be asked again, which parks the whole
-- host. What was held is walked in the new state: commits are dropped, account and identity events
-- count. A claim that is over changes nothing.
--
-- Called by: fetchers.
-- Locks: the repo's row, skip locked (null: try again); the host's, skip locked: who holds it
-- brings news of its own.
create or replace function sync.fail_fetch(
    p_repo_id bigint, p_generation bigint, p_fetch_token bigint, p_error text,
    p_account_status text default null, p_host_ready_at timestamptz default null)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_host_id int;
begin
  perform sync_priv.require_stage();
  perform from sync.repos r where r.repo_id = p_repo_id for no key update skip locked;
  if not found then
    return null;
  end if;
  update sync.repos r
     set sync_state = 'failed', error = left(p_error, 500), attempts = r.attempts + 1,
         next_fetch_at = sync_priv.clock() + sync_priv.backoff(r.attempts + 1),
         is_active = r.is_active and p_account_status is null,
         account_status = coalesce(p_account_status, r.account_status),
         is_identity_stale = r.is_identity_stale or p_account_status is not null,
         identity_checked_at = case when p_account_status is null then r.identity_checked_at end
   where r.repo_id = p_repo_id and r.generation = p_generation
     and r.fetch_token = p_fetch_token and r.sync_state = 'fetching'
  returning r.host_id into v_host_id;
  if v_host_id is null then
    return false;
  end if;
  if p_host_ready_at is not null and v_host_id <> 0 then
    update sync.hosts h
       set ready_at = greatest(h.ready_at,
                               least(p_host_ready_at, sync_priv.clock() + interval '1 hour')),
           failures = h.failures + 1, last_error = left(p_error, 500),
           updated_at = sync_priv.clock()
     where h.host_id in (select l.host_id from sync.hosts l where l.host_id = v_host_id
                           for no key update skip locked);
  end if;
  perform sync_priv.walk_events(array[p_repo_id], false);
  return true;
end
$$;
comment on function sync.fail_fetch(bigint, bigint, bigint, text, text, timestamptz) is
  'End a claimed fetch with an error; false when the claim was over, null when the
repo is locked right now. p_account_status: the PDS says the
account is deactivated, suspended or takendown. p_host_ready_at: when the PDS may be asked again, at
most an hour from now.';
