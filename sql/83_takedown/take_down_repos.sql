-- Hide repos here, whatever upstream says: their records are gone from the views at once, and a
-- trigger logs the `purge`. Nothing is deleted; sync.restore_repos() shows them again.
--
-- Idempotent.
--
-- Called by: operators.
-- Locks: the repos' rows, in repo_id order.
-- Raises: SY001 when a did is not known.
create or replace function sync.take_down_repos(p_dids text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
begin
  perform sync_priv.lock_repos(p_dids);
  update sync.repos r
     set local_status = 'takendown'
   where r.did = any (p_dids) and r.local_status is distinct from 'takendown';
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function sync.take_down_repos(text[]) is
  'Hide the repos of p_dids; returns how many were not taken down before. Raises SY001.';
