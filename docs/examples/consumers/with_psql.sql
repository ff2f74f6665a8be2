-- Keep `posts` and `post_counts` current with psql alone: a batch every POLL_S seconds, until Ctrl-C.
--
-- What stands before \watch is sent as one query (that is what `\;` is for), and PostgreSQL makes
-- one query one transaction. In a function, or between BEGIN and COMMIT, it works as well.
\set ON_ERROR_STOP on
\set QUIET on
\set POLL_S 1
\getenv POLL_S POLL_S
\o /dev/null
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts');

create temporary table batch on commit drop as
select row_number() over () as n, kind, did, rkey, value ->> 'text' as text
  from sync.read_changes('posts', 5000)
 -- A purge comes for other collections than ours, too.
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post' \;
-- It takes away what came before it: from the tables, and from the batch.
delete from posts p using batch b where b.kind = 'purge' and p.did = coalesce(b.did, p.did) \;
delete from post_counts c using batch b where b.kind = 'purge' and c.did = coalesce(b.did, c.did) \;
delete from batch b using batch p
 where p.kind = 'purge' and p.n >= b.n and (p.did is null or p.did = b.did) \;
-- A create is of a post that was not there, a delete of one that was. So they add up.
insert into post_counts
select distinct did, 0 from batch where kind = 'create'
    on conflict (did) do nothing \;
update post_counts c
   set posts = c.posts + d.posts
  from (select did, count(*) filter (where kind = 'create')
                    - count(*) filter (where kind = 'delete') as posts
          from batch group by did) d
 where c.did = d.did \;
-- The last word on each post counts.
delete from posts p using batch b where b.kind = 'delete' and (p.did, p.rkey) = (b.did, b.rkey) \;
insert into posts
select did, rkey, text
  from (select distinct on (did, rkey) *
          from batch
         where kind in ('create', 'update', 'delete')
         order by did, rkey, n desc) b
 where kind <> 'delete'
    on conflict (did, rkey) do update set text = excluded.text
\watch :POLL_S
