-- The tree of replies: every post with its parent and root, and a function that walks a thread.
--
--   app.replies            a row a post: did, rkey, uri, parent, root, text
--   app.thread(uri, depth) the post and what was replied to it, in reading order
--
-- A reply may come before the post it answers: it waits under its parent's URI until that is there.
--
-- Try: select repeat('  ', depth) || text from app.thread('at://did:plc:…/…');
create schema if not exists app;

create table app.replies (
  did     text collate "C" not null,
  rkey    text collate "C" not null,
  uri     text collate "C" not null,
  parent  text collate "C",
  root    text collate "C",
  text    text not null,
  primary key (did, rkey)
);
create index on app.replies using hash (uri);
create index on app.replies using hash (parent);

create function app.thread(p_uri text, p_depth int default 100)
  returns table (depth int, uri text, text text)
  language sql stable set search_path = app, pg_temp
as $$
  with recursive tree as (
    select 0 as depth, r.uri, r.text, array[r.rkey, r.did] as place
      from replies r where r.uri = p_uri
     union all
    select t.depth + 1, r.uri, r.text, t.place || r.rkey || r.did
      from tree t join replies r on r.parent = t.uri
     where t.depth < p_depth
  )
  select tree.depth, tree.uri, tree.text from tree order by tree.place
$$;

create function app.apply_replies(target regclass, changes sync.change[])
  returns void
  language plpgsql security definer set search_path = app, pg_temp
as $$
begin
  execute format($q$
    delete from %s t using unnest($1) c where c.op = 'purge' and c.did is null
  $q$, target) using changes;
  execute format($q$
    delete from %s t using unnest($1) c where c.op = 'purge' and c.did = t.did
  $q$, target) using changes;
  execute format($q$
    delete from %s t using unnest($1) c
     where c.op = 'delete' and (c.did, c.rkey) = (t.did, t.rkey)
  $q$, target) using changes;
  execute format($q$
    insert into %s (did, rkey, uri, parent, root, text)
    select c.did, c.rkey, c.uri, sync_migration.as_text(c.value #> '{reply,parent,uri}'),
           sync_migration.as_text(c.value #> '{reply,root,uri}'),
           coalesce(sync_migration.as_text(c.value -> 'text'), '')
      from unnest($1) c where c.op = 'put'
        on conflict (did, rkey) do update
       set parent = excluded.parent, root = excluded.root, text = excluded.text
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_replies from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_replies to sync_ingester;

select sync.create_projection('replies', 'app.replies', '{app.bsky.feed.post}',
                              'app.apply_replies(regclass, sync.change[])');
