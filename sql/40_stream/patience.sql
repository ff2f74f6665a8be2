-- How long an event that came too early waits for what another source has to tell.
--
-- Called by: sync_priv.hold_events(), sync_priv.forget_held().
create or replace function sync_priv.patience()
  returns interval
  language sql
  immutable
as $$
  select interval '10 seconds'
$$;
comment on function sync_priv.patience() is
  'How long a broken chain waits for another source before the repo is fetched.';
