-- Who serves and who asks: once a database, as a login that may make roles, like the service's own.
--
--   api_owner      owns what the app adds to the API; a reader as any app is
--   authenticator  the engine's login; it may become anon, and is nothing else itself
--   anon           whoever asks without a token; a member of nothing
create role api_owner nologin;
create role anon nologin;
create role authenticator login noinherit password 'choose one';
grant sync_reader to api_owner;
grant api_owner to current_user;
grant anon to authenticator;

-- No question may cost more than this. (What `alter role anon` says would count for a login only.)
alter role authenticator set statement_timeout = '5s';

-- The app's schema. The views that sync.create_view() makes belong to sync_owner, who needs to
-- create there; what stands in it is shown to anon view by view.
create schema api authorization api_owner;
grant usage, create on schema api to sync_owner;
grant usage on schema api to anon;

-- A view reads tables as its owner, but calls functions as its reader. These compute and read
-- nothing; usage of sync_priv opens these two and no more. Those of sync_migration may get company
-- in an upgrade.
grant usage on schema sync_priv, sync_migration to anon;
grant execute on function sync_priv.cid_text(bytea), sync_priv.base32_pair(int) to anon;
grant execute on all functions in schema sync_migration to anon;
alter default privileges for role sync_owner in schema sync_migration
  grant execute on functions to anon;
