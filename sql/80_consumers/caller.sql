-- The role on whose behalf a SECURITY DEFINER function runs: what SET ROLE chose, else the login.
--
-- `current_user` is the owner of the function there; the setting `role` can only name a role
-- that the session may become.
--
-- Called by: whatever decides who may use a consumer.
create or replace function sync_priv.caller()
  returns name
  language sql
  stable
as $$
  select coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;
comment on function sync_priv.caller() is 'The role that called: SET ROLE''s, else the login.';
