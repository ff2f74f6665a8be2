-- Several tenants on one database: what they share. Once, as an operator who may make roles, like
-- the service's own login.
begin;

--   tenants    what every tenant is a member of; no tenant is a member of sync_reader
--   app_owner  owns the schema app, and no tenant becomes it
create role tenants nologin;
create role app_owner nologin;
grant sync_reader to app_owner;
grant app_owner to current_user;
create schema app authorization app_owner;
grant usage on schema app to tenants;

-- app_owner tracks in the name of tenants; of what an operator may do it gets nothing else.
grant execute on function sync.track_repos(text[]), sync.untrack_repos(text[]) to app_owner;

-- Reading a consumer is each tenant's own affair: it belongs to the role that made it. Making one
-- is not, since its maker chooses the dids: app.create_consumer() does.
grant usage on schema sync to tenants;
grant execute on function sync.read_changes(text, int, int), sync.replay(text, text[], text[]),
  sync.drop_consumer(text) to tenants;

-- A view reads tables as its owner, but calls functions as its reader. These compute and read
-- nothing; usage of sync_priv opens these three and no more.
grant usage on schema sync_priv, sync_migration to tenants;
grant execute on function sync_priv.cid_text(bytea), sync_priv.base32_pair(int), sync_priv.clock()
  to tenants;
grant execute on all functions in schema sync_migration to tenants;
alter default privileges for role sync_owner in schema sync_migration
  grant execute on functions to tenants;

-- Typed columns, of which app.posts below shows each tenant its part.
select from sync.create_view('posts', 'app.bsky.feed.post', p_columns => $json$
  {"text": "value ->> 'text'", "created_at": "sync_migration.as_datetime(value -> 'createdAt')"}
  $json$);

set local role app_owner;

-- Who is a tenant, of which collections, and of which dids: operators write the first, tenants the
-- second through app.ask_for() and app.leave().
create table app.tenants (
  tenant       name primary key,
  collections  text[] collate "C" not null
    check (cardinality(collections) > 0 and array_to_string(collections, ' ') !~ '[*]')
);
create table app.tenant_dids (
  tenant  name not null references app.tenants on delete cascade,
  did     text collate "C" not null,
  primary key (tenant, did)
);
create index on app.tenant_dids (did);

-- A table of its own for everybody to write, and the rule that makes it many.
create table app.notes (
  tenant  name not null default current_user references app.tenants on delete cascade,
  did     text collate "C" not null,
  rkey    text collate "C" not null,
  note    text not null,
  primary key (tenant, did, rkey)
);
alter table app.tenants enable row level security;
alter table app.tenant_dids enable row level security;
alter table app.notes enable row level security;
create policy own on app.tenants for select to tenants using (tenant = current_user);
create policy own on app.tenant_dids for select to tenants using (tenant = current_user);
create policy own on app.notes to tenants
  using (tenant = current_user) with check (tenant = current_user);
grant select on app.tenants, app.tenant_dids to tenants;
grant select, insert, update, delete on app.notes to tenants;

-- What a tenant sees of the records. Run as app_owner, whom no policy binds, so the condition is
-- here; current_user is whoever asks. Lists, rather than joins: a list is known before the records
-- are read, so that its dids are looked up in the index.
create view app.records with (security_barrier) as
select r.*
  from sync.records r
 where r.did = any (array(select d.did from app.tenant_dids d where d.tenant = current_user))
   and r.collection = any (array(select unnest(t.collections) from app.tenants t
                                  where t.tenant = current_user));
create view app.posts with (security_barrier) as
select p.*
  from sync_views.posts p
 where p.did = any (array(select d.did from app.tenant_dids d where d.tenant = current_user))
   and exists (select from app.tenants t
                where t.tenant = current_user and 'app.bsky.feed.post' = any (t.collections));
-- Is there more to read? sync.consumer_status tells of everybody's consumers, and their dids.
create view app.consumer_status with (security_barrier) as
select * from sync.consumer_status c where c.owner_name = current_user;
grant select on app.records, app.posts, app.consumer_status to tenants;

-- Over tables with policies: run with the rights of whoever asks, so that they bind.
create view app.noted_posts with (security_invoker) as
select n.did, n.rkey, n.note, p.text
  from app.notes n
  left join lateral (
    select p.text from app.posts p where (p.did, p.rkey) = (n.did, n.rkey) limit 1) p on true;
grant select on app.noted_posts to tenants;

-- The tenant on whose behalf a SECURITY DEFINER function runs; current_user is app_owner there.
create function app.caller()
  returns name
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;

-- Want these accounts: they are tracked, and shown to the calling tenant.
create function app.ask_for(p_dids text[])
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into app.tenant_dids (tenant, did)
  select app.caller(), u.did from unnest(p_dids) as u (did)
      on conflict do nothing;
  perform sync.track_repos(p_dids);
end
$$;

-- Want them no more: they are untracked unless another tenant wants them. A consumer made before
-- would still deliver them, so the tenant's consumers go.
--
-- Locks: the table against writers, so that nobody asks meanwhile for what goes.
create function app.leave(p_dids text[])
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone text[];
begin
  lock table app.tenant_dids in share row exclusive mode;
  with gone as (
    delete from app.tenant_dids d
     where d.tenant = app.caller() and d.did = any (p_dids)
    returning d.did
  )
  select array_agg(g.did) into v_gone
    from gone g
   where not exists (select from app.tenant_dids d
                      where d.did = g.did and d.tenant <> app.caller());
  perform sync.untrack_repos(v_gone) where v_gone is not null;
  perform sync.drop_consumer(c.name)
     from sync.consumer_status c
    where c.owner_name = app.caller() and c.shard = 0;
end
$$;

-- A consumer `TENANT/p_name` of what the tenant sees at this moment. It belongs to the tenant: that
-- is whose role the session has.
--
-- Locks: as a writer of the table, so that app.leave() either comes before or drops it.
create function app.create_consumer(p_name text)
  returns text
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := app.caller() || '/' || p_name;
begin
  lock table app.tenant_dids in row exclusive mode;
  perform sync.create_consumer(
    v_name,
    p_collections => (select t.collections from app.tenants t where t.tenant = app.caller()),
    p_dids => array(select d.did from app.tenant_dids d where d.tenant = app.caller()));
  return v_name;
end
$$;

-- Else everybody might.
revoke execute on all functions in schema app from public;
grant execute on function app.caller(), app.ask_for(text[]), app.leave(text[]),
  app.create_consumer(text) to tenants;

commit;
