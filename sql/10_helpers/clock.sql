-- The one door by which time enters.
--
-- A test sets the setting `sync.now`; nobody else does.
--
-- Called by: every function that writes a time.
create or replace function sync_priv.clock()
  returns timestamptz
  language sql
  stable
as $$
  select coalesce(nullif(current_setting('sync.now', true), '')::timestamptz, clock_timestamp())
$$;
comment on function sync_priv.clock() is 'The current time, or the setting sync.now in a test.';
