-- One more tenant, with a schema of its own:
--
--   psql --set tenant=red --set password=… --set collections='{app.bsky.feed.post}' \
--     --file tenant.sql
--
-- As the operator who ran host.sql.
\set ON_ERROR_STOP on
begin;

create role :"tenant" login password :'password';
grant tenants to :"tenant";
-- So that the operator can make the schema, and back it up.
grant :"tenant" to current_user;
create schema :"tenant" authorization :"tenant";

insert into app.tenants (tenant, collections) values (:'tenant', :'collections');

commit;
