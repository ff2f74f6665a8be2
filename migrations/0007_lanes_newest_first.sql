-- Every batch updates the one row of its lane; as with consumer_shards, a key that ends with the
-- number of the version finds the living one first. The lane comes before the epoch, so that its
-- latest epoch is found as directly. Updates are no longer HOT: the room on the page is of no use.
alter table sync.cursors
  add column version bigint not null default 0,
  drop constraint cursors_pkey,
  add primary key (source_id, lane, lane_epoch, version);
alter table sync.cursors reset (fillfactor);
comment on column sync.cursors.version is
  'Grows with every batch. Only the highest one lives; a key that ends with it finds it first.';
