-- See whether this database was restored, recovered or copied since it last numbered a change;
-- if so, begin a new log epoch and put every interrupted fetch back in line.
--
-- A file-system copy has the identity of its original, and somebody has to say it is one. Then
-- this is not idempotent: each call opens another epoch.
--
-- Called by: sync.schema.upgrade(), `--restored` for a copy.
-- Locks: advisory (7261, 1), the log's lock, to the end of the transaction.
create or replace function sync_priv.notice_restore(p_is_copy boolean)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(7261, 1);
  if p_is_copy then
    -- No database has this oid, so the identities differ and open_epoch() does the rest.
    update sync_priv.log_state set database_oid = 0;
  end if;
  if sync_priv.open_epoch() then
    perform sync.recover_fetches();
  end if;
end
$$;
comment on function sync_priv.notice_restore(boolean) is
  'Begin a new log epoch and recover fetches if this database is not the one that wrote the log.';
