-- The latest status of everybody, kept by a projection; as the app's own login.
--
--   app.latest_status   a row a person: did, rkey, status, said_at
create schema app;

create table app.latest_status (
  did      text collate "C" primary key,
  rkey     text collate "C" not null,
  status   text not null,
  said_at  timestamptz not null
);
create index on app.latest_status (said_at desc);

create function app.apply_latest_status(target regclass, changes sync.change[])
  returns void
  language plpgsql security definer set search_path = app, pg_temp
as $$
begin
  execute format($q$
    delete from %s t using unnest($1) c where c.op = 'purge' and c.did is null
  $q$, target) using changes;
  -- Whatever has happened to a person: the row goes, and is made anew of what the view has now.
  execute format($q$
    delete from %s t using unnest($1) c where c.did = t.did
  $q$, target) using changes;
  execute format($q$
    insert into %s (did, rkey, status, said_at)
    select distinct on (s.did) s.did, s.rkey, s.status, least(s.created_at, s.indexed_at) as said_at
      from sync_views.statuses s
     where s.did = any (array(select c.did from unnest($1) c))
       and octet_length(s.status) between 1 and 32 and s.created_at is not null
     order by s.did, said_at desc, s.rkey desc
  $q$, target) using changes;
  perform pg_notify('latest_status', '');
end
$$;

-- The service calls it, and nobody else.
revoke execute on function app.apply_latest_status from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_latest_status to sync_ingester;

select sync.create_projection('latest status', 'app.latest_status', '{xyz.statusphere.status}',
                              'app.apply_latest_status(regclass, sync.change[])');
