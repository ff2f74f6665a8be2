-- The latest status of everybody: a table that a projection keeps. Run it as the app's own login.
create schema app;

create table app.latest_status (
  did      text collate "C" primary key,
  status   text not null,
  said_at  timestamptz not null
);
create index on app.latest_status (said_at desc);

create function app.apply_latest_status(target regclass, changes sync.change[]) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  people text[] := array(select c.did from unnest(changes) c);
  everybody boolean := exists (select from unnest(changes) c where c.did is null);
begin
  -- Whatever has happened to a person, the row goes, and is made anew of what the view has now.
  execute format('delete from %s where did = any ($1) or $2', target) using people, everybody;
  execute format($q$
    insert into %s (did, status, said_at)
    select distinct on (did) did, status, least(created_at, indexed_at) as said_at
      from sync_views.statuses
     where did = any ($1)
       and octet_length(status) between 1 and 32 and created_at is not null
     order by did, said_at desc, rkey desc
  $q$, target) using people;
  notify latest_status;
end
$$;

-- The service calls it, and nobody else.
revoke execute on function app.apply_latest_status from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_latest_status to sync_ingester;

select sync.create_projection('latest status', 'app.latest_status', '{xyz.statusphere.status}',
                              'app.apply_latest_status(regclass, sync.change[])');
