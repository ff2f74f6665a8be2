-- Posts that belong to the app's own users, by a foreign key, in whatever order both arrive.
--
--   app.users       the app's own table: who signed up
--   app.user_posts  a row a post; user_id is null until its author has signed up
--
-- Try: select u.name, p.text from app.users u join app.user_posts p using (user_id);
create schema if not exists app;

create table app.users (
  user_id  bigint generated always as identity primary key,
  did      text collate "C" not null unique,
  name     text not null
);
create table app.user_posts (
  did      text collate "C" not null,
  rkey     text collate "C" not null,
  user_id  bigint references app.users on delete set null,
  text     text not null,
  primary key (did, rkey)
);
create index on app.user_posts (user_id);

-- Whoever signs up is given the posts that are there already.
create function app.claim_posts()
  returns trigger
  language plpgsql security definer set search_path = app, pg_temp
as $$
begin
  update user_posts p set user_id = new.user_id where p.did = new.did;
  return null;
end
$$;
create trigger claim_posts after insert on app.users
  for each row execute function app.claim_posts();

create function app.apply_user_posts(target regclass, changes sync.change[])
  returns void
  language plpgsql security definer set search_path = app, pg_temp
as $$
begin
  -- Nobody signs up between our look at the users and our commit: he would miss these posts.
  lock table users in share mode;
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
    insert into %s (did, rkey, user_id, text)
    select c.did, c.rkey, u.user_id, coalesce(sync_migration.as_text(c.value -> 'text'), '')
      from unnest($1) c left join users u on u.did = c.did
     where c.op = 'put'
        on conflict (did, rkey) do update
       set user_id = excluded.user_id, text = excluded.text
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_user_posts from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_user_posts to sync_ingester;

select sync.create_projection('user posts', 'app.user_posts', '{app.bsky.feed.post}',
                              'app.apply_user_posts(regclass, sync.change[])');
