-- See to it that a transaction which appended to the log is numbered when it commits.
--
-- Called by: a statement trigger on sync_priv.pending_changes.
create or replace function sync_priv.mark_log()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into sync_priv.log_markers (xid) values (pg_current_xact_id()) on conflict do nothing;
  return null;
end
$$;
comment on function sync_priv.mark_log() is 'Leave the marker row that sync_priv.number_changes() waits for.';

create or replace trigger mark_log
  after insert on sync_priv.pending_changes
  for each statement execute function sync_priv.mark_log();
