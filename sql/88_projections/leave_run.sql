-- Note that this transaction has called a projection's function, and may call another's.
--
-- Called by: sync.run_projection(), sync.rebuild_projection().
create or replace function sync_priv.leave_run(p_token uuid)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  delete from sync_priv.projection_runs r
   where r.xid = pg_current_xact_id() and r.token = p_token
$$;
comment on function sync_priv.leave_run(uuid) is 'End the run of a projection in this transaction.';
