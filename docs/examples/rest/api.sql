-- What the app adds to the views: plain views over them, relationships, a feed. As a login that may
-- become api_owner; it can run again and again.
begin;
set local role api_owner;

-- One row an account: the lexicon allows no other key than `self`, but anybody may write anything.
create or replace view api.profiles with (security_barrier) as
select p.did,
       (select s.handle from sync.repo_status s where s.did = p.did) as handle,
       p.display_name,
       p.description,
       p.created_at,
       p.indexed_at
  from sync_views.profiles p
 where p.rkey = 'self';
comment on view api.profiles is 'The profile of an account, if it has one.';
grant select on api.profiles to anon;

-- Relationships. Views have no foreign keys, so the engine is told by functions: the parameter is
-- the view that a request names, the result what it embeds. `rows 1` says that it is one row.
-- `limit 1` keeps it a query of its own for each post; joined to the posts, the other view would be
-- read from one end to the other.
create or replace function api.author(api.posts)
  returns setof api.profiles
  rows 1
  language sql
  stable
as $$
  select * from api.profiles p where p.did = $1.did limit 1
$$;

create or replace function api.parent(api.posts)
  returns setof api.posts
  rows 1
  language sql
  stable
as $$
  select p.*
    from api.posts p
   where p.did = split_part($1.reply #>> '{parent,uri}', '/', 3)
     and p.rkey = split_part($1.reply #>> '{parent,uri}', '/', 5)
     and split_part($1.reply #>> '{parent,uri}', '/', 4) = 'app.bsky.feed.post'
   limit 1
$$;

create or replace function api.posts(api.profiles)
  returns setof api.posts
  language sql
  stable
as $$
  select * from api.posts p where p.did = $1.did
$$;

-- The newest posts of everybody, a page at a time: pass the last `cursor` as `older_than`.
--
-- anon may not call sync.list_records(), so this runs as api_owner; what it selects is fixed.
create or replace function api.newest_posts(older_than text default null,
                                            page_size int default 50)
  returns table (did text, rkey text, uri text, text text, created_at timestamptz,
                 indexed_at timestamptz, cursor text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select l.did, l.rkey, l.uri, sync_migration.as_text(l.value -> 'text'),
         sync_migration.as_datetime(l.value -> 'createdAt'), l.indexed_at, l.cursor
    from sync.list_records('app.bsky.feed.post', older_than, least(page_size, 100)) l
$$;

commit;
