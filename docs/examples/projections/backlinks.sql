-- Every link in every record: which record names which URI or account, and where.
--
--   app.backlinks   did, collection, rkey of the record; path in it, such as `.subject.uri`;
--                   target: an at:// URI or a DID
--
-- Try: select did, collection, path from app.backlinks where target = 'did:plc:…';
create schema if not exists app;

create table app.backlinks (
  did         text collate "C" not null,
  collection  text collate "C" not null,
  rkey        text collate "C" not null,
  place       int not null,
  path        text collate "C" not null,
  target      text collate "C" not null,
  primary key (did, collection, rkey, place)
);
-- A hash takes targets of any length; strangers write them.
create index on app.backlinks using hash (target);

create function app.links_of(p_value jsonb)
  returns table (path text, target text)
  language sql immutable set search_path = app, pg_temp
as $$
  with recursive node (path, value) as (
    select '', p_value
     union all
    select n.path || s.step, s.value
      from node n
     cross join lateral (
       select '.' || e.key as step, e.value
         from jsonb_each(case jsonb_typeof(n.value) when 'object' then n.value end) e
        union all
       select '[]', e.value
         from jsonb_array_elements(case jsonb_typeof(n.value) when 'array' then n.value end) e) s
  )
  select distinct n.path, n.value #>> '{}'
    from node n
   where jsonb_typeof(n.value) = 'string' and n.value #>> '{}' ~ '^(at://|did:[a-z]+:)[^\s]+$'
$$;

create function app.apply_backlinks(target regclass, changes sync.change[])
  returns void
  language plpgsql security definer set search_path = app, pg_temp
as $$
begin
  execute format($q$
    delete from %s t using unnest($1) c
     where c.op = 'purge' and c.did is null
       and (c.collection is null or c.collection = t.collection)
  $q$, target) using changes;
  execute format($q$
    delete from %s t using unnest($1) c
     where c.op = 'purge' and c.did = t.did
       and (c.collection is null or c.collection = t.collection)
  $q$, target) using changes;
  -- The links of a record that has changed are written anew.
  execute format($q$
    delete from %s t using unnest($1) c
     where c.op <> 'purge'
       and (c.did, c.collection, c.rkey) = (t.did, t.collection, t.rkey)
  $q$, target) using changes;
  execute format($q$
    insert into %s (did, collection, rkey, place, path, target)
    select c.did, c.collection, c.rkey,
           row_number() over (partition by c.did, c.collection, c.rkey
                              order by l.path collate "C", l.target collate "C"),
           l.path, l.target
      from unnest($1) c cross join lateral app.links_of(c.value) l
     where c.op = 'put'
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_backlinks from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_backlinks to sync_ingester;

select sync.create_projection('backlinks', 'app.backlinks', null,
                              'app.apply_backlinks(regclass, sync.change[])');
