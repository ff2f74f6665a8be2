-- Number the next change of a key or PDS.
--
-- The row lock makes the serials visible in their order, so a lane that has seen one has missed
-- none before it.
--
-- Called by: sync.set_identity(), last of all.
-- Locks: the one row of sync_priv.signer_state.
create or replace function sync_priv.next_signer_serial()
  returns bigint
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  update sync_priv.signer_state s set serial = s.serial + 1 returning s.serial
$$;
comment on function sync_priv.next_signer_serial() is 'Begin and return the next signer serial.';
