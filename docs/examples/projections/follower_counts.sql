-- Who follows whom, and how many followers each account has.
--
--   app.follows          a row a follow: did (who follows), rkey, subject (who is followed)
--   app.follower_counts  did, followers: kept by triggers on app.follows
--
-- Try: select * from app.follower_counts order by followers desc limit 10;
create schema if not exists app;

create table app.follows (
  did      text collate "C" not null,
  rkey     text collate "C" not null,
  subject  text collate "C" not null,
  primary key (did, rkey)
);
create index on app.follows (subject);

create table app.follower_counts (
  did        text collate "C" primary key,
  followers  bigint not null check (followers > 0)
);

-- What hangs on the target hangs on it by triggers: they also fire for what a rebuild corrects. One
-- call a statement, whatever the number of rows.
create function app.count_followers()
  returns trigger
  language plpgsql set search_path = app, pg_temp
as $$
begin
  if tg_op in ('INSERT', 'UPDATE') then
    insert into follower_counts as f (did, followers)
    select n.subject, count(*) from new_rows n group by n.subject order by n.subject
        on conflict (did) do update set followers = f.followers + excluded.followers;
  end if;
  if tg_op in ('DELETE', 'UPDATE') then
    delete from follower_counts f
     using (select o.subject, count(*) as gone from old_rows o group by o.subject) g
     where f.did = g.subject and f.followers = g.gone;
    update follower_counts f set followers = f.followers - g.gone
      from (select o.subject, count(*) as gone from old_rows o group by o.subject) g
     where f.did = g.subject;
  end if;
  return null;
end
$$;
create trigger count_added after insert on app.follows
  referencing new table as new_rows for each statement execute function app.count_followers();
create trigger count_changed after update on app.follows
  referencing old table as old_rows new table as new_rows
  for each statement execute function app.count_followers();
create trigger count_gone after delete on app.follows
  referencing old table as old_rows for each statement execute function app.count_followers();

create function app.apply_follows(target regclass, changes sync.change[])
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
  -- A record that no longer names an account goes as well.
  execute format($q$
    delete from %s t using unnest($1) c
     where c.op <> 'purge' and (c.did, c.rkey) = (t.did, t.rkey)
       and sync_migration.as_text(c.value -> 'subject') is distinct from t.subject
  $q$, target) using changes;
  -- What strangers write may be of any length, but not fit into an index.
  execute format($q$
    insert into %s (did, rkey, subject)
    select c.did, c.rkey, sync_migration.as_text(c.value -> 'subject')
      from unnest($1) c
     where c.op = 'put' and jsonb_typeof(c.value -> 'subject') = 'string'
       and c.value ->> 'subject' ~ '^did:[!-~]+$' and length(c.value ->> 'subject') <= 500
        on conflict (did, rkey) do nothing
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_follows from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_follows to sync_ingester;

select sync.create_projection('follows', 'app.follows', '{app.bsky.graph.follow}',
                              'app.apply_follows(regclass, sync.change[])');
