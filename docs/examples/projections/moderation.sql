-- Posts that may be shown: without those that their author or a labeler has labelled.
--
--   app.labelled_posts  a row a post: did, rkey, uri, text, self_labels
--   app.labels          what labelers said of a post (its URI) or an account (its DID); the app
--                       writes it, and it may come before the post or after
--   app.hidden_values   which labels hide
--   app.shown_posts     what is left
--
-- Try: select uri, text from app.shown_posts;
create schema if not exists app;

create table app.labelled_posts (
  did          text collate "C" not null,
  rkey         text collate "C" not null,
  uri          text collate "C" not null,
  text         text not null,
  self_labels  text[] not null,
  primary key (did, rkey)
);
create table app.labels (
  subject  text collate "C" not null,
  value    text collate "C" not null,
  labeler  text collate "C" not null,
  primary key (subject, value, labeler)
);
create table app.hidden_values (value text collate "C" primary key);
insert into app.hidden_values values ('!hide'), ('porn'), ('graphic-media');

-- A join, not a column of the posts: labels come and go without the posts having changed.
create view app.shown_posts as
select p.did, p.rkey, p.uri, p.text
  from app.labelled_posts p
 where not exists (select from app.hidden_values h where h.value = any (p.self_labels))
   and not exists (select from app.labels l join app.hidden_values h using (value)
                    where l.subject in (p.uri, p.did));

create function app.apply_labelled_posts(target regclass, changes sync.change[])
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
    insert into %s (did, rkey, uri, text, self_labels)
    select c.did, c.rkey, c.uri, coalesce(sync_migration.as_text(c.value -> 'text'), ''),
           array(select l #>> '{}'
                   from jsonb_path_query(c.value, 'lax $.labels.values[*].val') l
                  where jsonb_typeof(l) = 'string')
      from unnest($1) c where c.op = 'put'
        on conflict (did, rkey) do update
       set text = excluded.text, self_labels = excluded.self_labels
  $q$, target) using changes;
end
$$;

revoke execute on function app.apply_labelled_posts from public;
grant usage on schema app to sync_ingester;
grant execute on function app.apply_labelled_posts to sync_ingester;

select sync.create_projection('labelled posts', 'app.labelled_posts', '{app.bsky.feed.post}',
                              'app.apply_labelled_posts(regclass, sync.change[])');
