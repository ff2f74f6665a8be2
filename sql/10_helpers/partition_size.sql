-- How many change ids one partition of the log holds.
--
-- Called by: whatever makes, leaves or looks at partitions.
create or replace function sync_priv.partition_size()
  returns bigint
  language sql
  immutable
as $$ select 8388608::bigint $$;
comment on function sync_priv.partition_size() is 'Change ids a partition of sync.changes.';
