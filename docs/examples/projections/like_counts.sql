-- Who likes what, and how many likes each post has.
--
--   app.likes        a row a like: did (who likes), rkey, subject (the URI of what is liked)
--   app.like_counts  subject, likes: kept by triggers on app.likes
--
-- Try: select * from app.like_counts order by likes desc limit 10;
create schema if not exists app;

create table app.likes (
  did      text collate "C" not null,
  rkey     text collate "C" not null,
  subject  text collate "C" not null,
  primary key (did, rkey)
);
create index on app.likes (subject);

create table app.like_counts (
  subject  text collate "C" primary key,
  likes    bigint not null check (likes > 0)
);
create index on app.like_counts (likes desc);

create function app.count_likes()
  returns trigger
  language plpgsql set search_path = app, pg_temp
as $$
begin
  if tg_op in ('INSERT', 'UPDATE') then
    insert into like_counts as l (subject, likes)
    select n.subject, count(*) from new_rows n group by n.subject order by n.subject
        on conflict (subject) do update set likes = l.likes + excluded.likes;
  end if;
  if tg_op in ('DELETE', 'UPDATE') then
    delete from like_counts l
     using (select o.subject, count(*) as gone from old_rows o group by o.subject) g
     where l.subject = g.subject and l.likes = g.gone;
    update like_counts l set likes = l.likes - g.gone
      from (select o.subject, count(*) as gone from old_rows o group by o.subject) g
     where l.subject = g.subject;
  end if;
  return null;
end
$$;
create trigger count_added after insert on app.likes
  referencing new table as new_rows for each statement execute function app.count_likes();
create trigger count_changed after update on app.likes
  referencing old table as old_rows new table as new_rows
  for each statement execute function app.count_likes();
create trigger count_gone after delete on app.likes
  referencing old table as old_rows for each statement execute function app.count_likes();

create function app.apply_likes(target regclass, changes sync.change[])
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
     where c.op <> 'purge' and (c.did, c.rkey) = (t.did, t.rkey)
       and sync_migration.as_text(c.value #> '{subject,uri}') is distinct from t.subject
  $q$, target) using changes;
  execute format($q$
    insert into %s (did, rkey, subject)
    select c.did, c.rkey, sync_migration.as_text(c.value #> '{subject,uri}')
      from unnest($1) c
     where c.op = 'put' and jsonb_typeof(c.value #> '{subject,uri}') = 'string'
       and c.value #>> '{subject,uri}' ~ '^at://[!-~]+$'
       and length(c.value #>> '{subject,uri}') <= 1000
        on conflict (did, rkey) do nothing
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_likes from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_likes to sync_ingester;

select sync.create_projection('likes', 'app.likes', '{app.bsky.feed.like}',
                              'app.apply_likes(regclass, sync.change[])');
