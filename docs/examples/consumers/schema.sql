-- The app's tables: the posts of every account that is tracked, and how many each account has.
create table if not exists posts (
  did  text not null,
  rkey text not null,
  text text,
  primary key (did, rkey)
);
create table if not exists post_counts (
  did   text primary key,
  posts bigint not null check (posts >= 0)
);
