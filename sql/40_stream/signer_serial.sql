-- The serial of the last change of a repo's key or PDS.
--
-- Called by: lanes, to see if they have to reload.
create or replace function sync.signer_serial()
  returns bigint
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.serial from sync_priv.signer_state s
$$;
comment on function sync.signer_serial() is 'The serial of the last change of a key or PDS.';
