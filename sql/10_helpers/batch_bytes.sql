-- How many bytes of records a projection is given at once, as they are stored. Compressed they
-- come, so that a function which looks at all of them at the same time may need a multiple.
--
-- Called by: sync_priv.take_changes().
create or replace function sync_priv.batch_bytes()
  returns bigint
  language sql
  immutable
as $$ select 67108864::bigint $$;
comment on function sync_priv.batch_bytes() is
  'Bytes of records in one batch of a projection; one record that is larger comes alone.';
