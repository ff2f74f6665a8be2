-- Begin a new log epoch in a file-system copy, which has the identity of its original.
--
-- PostgreSQL cannot tell the two apart, so somebody has to say it. (A restored dump, a recovery
-- and a failover are noticed without.) Not idempotent: each call opens another epoch.
--
-- Called by: sync.schema.upgrade() with `--restored`.
-- Locks: advisory (7261, 1), the log's lock, to the end of the transaction.
create or replace function sync_priv.declare_restored()
  returns void
  language plpgsql
  set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(7261, 1);
  -- No database has this oid, so the identities differ and open_epoch() does the rest.
  update sync_priv.log_state set database_oid = 0;
  perform sync_priv.open_epoch();
end
$$;
comment on function sync_priv.declare_restored() is
  'Begin a new log epoch in a file-system copy of a database.';
