-- Posts as typed rows with full-text search.
--
--   app.posts   a row a post: did, rkey, uri, text, langs, created_at, words
--
-- Try: select uri, text from app.posts where words @@ websearch_to_tsquery('simple', 'hello');
create schema if not exists app;

create table app.posts (
  did         text collate "C" not null,
  rkey        text collate "C" not null,
  uri         text collate "C" not null,
  text        text not null,
  langs       text[] not null,
  created_at  timestamptz,
  words       tsvector generated always as (to_tsvector('simple', left(text, 10000))) stored,
  primary key (did, rkey)
);
create index on app.posts using gin (words);
create index on app.posts (created_at desc);

-- Purges first, then each record at most once: that is what `changes` holds.
create function app.apply_posts(target regclass, changes sync.change[])
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
  -- as_text and its like give null, never an error, for what is not of the type.
  execute format($q$
    insert into %s (did, rkey, uri, text, langs, created_at)
    select c.did, c.rkey, c.uri, coalesce(sync_migration.as_text(c.value -> 'text'), ''),
           coalesce(sync_migration.as_texts(c.value -> 'langs'), '{}'),
           sync_migration.as_datetime(c.value -> 'createdAt')
      from unnest($1) c where c.op = 'put'
        on conflict (did, rkey) do update
       set text = excluded.text, langs = excluded.langs, created_at = excluded.created_at
  $q$, target) using changes;
end
$$;

-- The service calls it, and nobody else.
revoke execute on function app.apply_posts from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_posts to sync_ingester;

select sync.create_projection('posts', 'app.posts', '{app.bsky.feed.post}',
                              'app.apply_posts(regclass, sync.change[])');
