create table sync.consumers (
  consumer_id  bigint generated always as identity primary key,
  name         text collate "C" not null unique,
  owner_name   text collate "C" not null,
  collections  text[] collate "C",
  dids         text[] collate "C",
  shards       int not null check (shards between 1 and 1024),
  created_at   timestamptz not null
);
comment on table sync.consumers is
  'Readers of the change log; made by sync.create_consumer(), read by sync.read_changes().';
comment on column sync.consumers.owner_name is
  'The role that made it: its members may read and drop it. A name, so that a restore in another
cluster keeps its meaning.';
comment on column sync.consumers.collections is 'NSIDs or patterns like app.bsky.feed.*; null = all.';
comment on column sync.consumers.dids is 'null = all.';

-- Every call of read_changes updates one row: keep the updates on its page.
create table sync_priv.consumer_shards (
  consumer_id  bigint not null references sync.consumers on delete cascade,
  shard        int not null,
  position     bigint not null,
  frontier     bigint,
  is_restart   boolean not null default false,
  is_lost      boolean not null default false,
  read_at      timestamptz,
  primary key (consumer_id, shard)
) with (fillfactor = 50);
comment on table sync_priv.consumer_shards is
  'Where a shard of a consumer stands: the repos with repo_id % shards = shard.';
comment on column sync_priv.consumer_shards.position is
  'Every change up to this change_id is delivered, but for the keys that are pending.';
comment on column sync_priv.consumer_shards.frontier is
  'While the shard walks from the beginning, repos beyond this repo_id are pending; then null.';
comment on column sync_priv.consumer_shards.is_restart is
  'The walk owes a purge for every repo before its records: the reader may hold old ones.';
comment on column sync_priv.consumer_shards.is_lost is
  'The log was retired past the position: only sync.replay() helps.';

-- Keys whose records come from the tables, once the reader has caught up with the log.
create table sync_priv.consumer_pending (
  consumer_id    bigint not null,
  shard          int not null,
  repo_id        bigint not null,
  collection_id  int not null default 0,
  after_rkey     text collate "C" not null default '',
  owes_purge     boolean not null default false,
  primary key (consumer_id, shard, repo_id, collection_id),
  foreign key (consumer_id, shard) references sync_priv.consumer_shards on delete cascade
);
comment on table sync_priv.consumer_pending is
  'Pending keys of a shard: a (repo, collection) beyond an rkey; collection 0 = the whole repo.';
comment on column sync_priv.consumer_pending.owes_purge is
  'The reader may hold old records of it: a purge comes first.';

-- The rare rows of the log that decide for others, so that a reader finds them without a scan.
create index changes_snapshots on sync.changes (repo_id, collection_id, change_id)
  where kind = 'snapshot';
create index changes_everybody on sync.changes (change_id) where repo_id is null;

-- One row of what a call of read_changes does; lives only between its functions.
create type sync_priv.batch_step as (
  step           text,
  change_id      bigint,
  kind           text,
  repo_id        bigint,
  collection_id  int,
  rkey           text collate "C",
  rev            text collate "C",
  cid            bytea,
  is_live        boolean,
  value          jsonb,
  raw            bytea,
  reason         text,
  logged_at      timestamptz
);
comment on type sync_priv.batch_step is
  'deliver: a row for the reader. pend: keys beyond rkey become pending. done: they no longer are.
place: the new position (change_id) and frontier (repo_id).';
