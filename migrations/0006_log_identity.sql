-- A dump restored over its own database leaves system, timeline and database as they were; only
-- the tables are new ones, so the log remembers which of them it was. A log that was written before
-- cannot know, and begins a new epoch.
alter table sync_priv.log_state add column table_oid oid;
update sync_priv.log_state
   set table_oid = case when (select last_value from sync_priv.change_ids) = 0
                        then 'sync_priv.log_state'::regclass::oid else 0 end;
alter table sync_priv.log_state alter column table_oid set not null;
comment on column sync_priv.log_state.table_oid is
  'The oid this very table had when the epoch began: a restore makes a new one.';
comment on column sync_priv.log_state.log_epoch is
  '1 at first; later ones are seconds since 2026 began, so that two restores of one dump differ.';
