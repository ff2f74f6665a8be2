-- Make the partitions of the log that a range of change ids needs. Idempotent.
--
-- LIKE, then ATTACH: `partition of` would lock the whole log against its readers.
--
-- Called by: sync.maintain() ahead of time; sync_priv.number_changes() in case it was not; both
-- under the log's lock.
create or replace function sync_priv.make_partitions(p_from bigint, p_to bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set client_min_messages = 'warning'
as $$
declare
  v_size  bigint := sync_priv.partition_size();
  v_name  text;
begin
  -- A loop, since every partition is a statement of its own; nearly always it makes none.
  for v_part in p_from / v_size .. p_to / v_size loop
    v_name := 'changes_' || v_part;
    -- Who has waited for the log's lock may still believe what to_regclass() told him before.
    continue when exists (
      select from pg_catalog.pg_class c
       where c.relname = v_name and c.relnamespace = 'sync_priv'::regnamespace);
    execute format(
      'create table sync_priv.%I (like sync.changes including all,
         constraint bounds check (change_id >= %s and change_id < %s))',
      v_name, v_part * v_size, (v_part + 1) * v_size);
    execute format(
      'alter table sync.changes attach partition sync_priv.%I for values from (%s) to (%s)',
      v_name, v_part * v_size, (v_part + 1) * v_size);
    execute format('alter table sync_priv.%I drop constraint bounds', v_name);
  end loop;
end
$$;
comment on function sync_priv.make_partitions(bigint, bigint) is
  'Make the partitions of sync.changes for the change ids p_from to p_to.';
