-- A row that every batch updates leaves a dead version each time, and while an old snapshot is
-- open (a dump, a forgotten session) none of them goes away: whoever looks it up by its key walks
-- over all of them. With the number of the version at the end of the key the living one comes
-- first. Pending keys come and go like jobs: they wait in a queue that is read from a mark on.

alter table sync_priv.consumer_pending
  drop constraint consumer_pending_consumer_id_shard_fkey,
  add column pending_id bigint generated always as identity;
create unique index consumer_pending_queue
  on sync_priv.consumer_pending (consumer_id, shard, pending_id);
comment on column sync_priv.consumer_pending.pending_id is 'Its place in the queue.';

alter table sync_priv.consumer_shards
  add column version bigint not null default 0,
  add column pending_from bigint not null default 0,
  drop constraint consumer_shards_pkey,
  add primary key (consumer_id, shard, version);
comment on column sync_priv.consumer_shards.version is
  'Grows with every batch. Only the highest one lives; a key that ends with it finds it first.';
comment on column sync_priv.consumer_shards.pending_from is
  'No pending key of the shard has a lower pending_id.';

-- Whether a stretch of the log has snapshots at all is asked by every batch.
create index changes_snapshots_order on sync.changes (change_id) where kind = 'snapshot';
