-- Undo sync.take_down_repos(). What upstream says of the account holds again.
--
-- Idempotent.
--
-- Called by: operators.
-- Locks: the repos' rows, in repo_id order.
-- Raises: SY001 when a did is not known, SY107 at another level than READ COMMITTED.
create or replace function sync.restore_repos(p_dids text[])
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
     set local_status = null
   where r.did = any (p_dids) and r.local_status = 'takendown';
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function sync.restore_repos(text[]) is
  'Show the repos of p_dids again; returns how many were taken down. Raises SY001, SY107.';
