-- See whether this database was restored, recovered or copied since it last numbered a change;
-- if so, begin a new log epoch and take away what others hold: lanes, and fetches, which start
-- over. Held events stay, and are walked at the next chance.
--
-- Tokens jump, since the original may have drawn more of them after the dump was taken; one that
-- still runs against this database cannot hold a valid one by chance.
--
-- Who dumped without the log has retired it up to its end: a reader that was not there yet is
-- outrun, and learns so.
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
declare
  v_last bigint;
begin
  perform pg_advisory_xact_lock(7261, 1);
  if p_is_copy then
    -- No database has this oid, so the identities differ and open_epoch() does the rest.
    update sync_priv.log_state set database_oid = 0;
  end if;
  select s.last_value into v_last from sync_priv.change_ids s;
  if not sync_priv.open_epoch() then
    return;
  end if;
  update sync_priv.log_state set log_floor = v_last
   where log_floor < v_last and not exists (select from sync.changes);
  perform setval('sync_priv.tokens', s.last_value + 1000000) from sync_priv.tokens s;
  update sync.cursors set token = nextval('sync_priv.tokens');
  perform sync.recover_fetches();
end
$$;
comment on function sync_priv.notice_restore(boolean) is
  'After a restore, recovery or copy: begin a new log epoch, take lanes and fetches from their holders.';
