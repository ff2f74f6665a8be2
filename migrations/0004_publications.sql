-- What logical replication may send. Below wal_level = logical PostgreSQL warns and makes them all
-- the same; they cost nothing until somebody subscribes.

-- The log only grows: retiring a partition is not sent, and a subscriber keeps its copy for as
-- long as it likes. Via the root, so that a subscriber needs no partition of ours, and one that is
-- attached later is covered.
create publication sync_changes for table sync.changes
  with (publish = 'insert', publish_via_partition_root = true);
comment on publication sync_changes is
  'The change log: every row as it is inserted, under the name sync.changes.';

-- The rows as they are stored, those of hidden accounts too: who subscribes decides by sync.repos
-- what he shows. Updates and deletes find their row by its primary key.
create publication sync_records for table sync.stored_records, sync.repos, sync.collections;
comment on publication sync_records is
  'The stored records with the repos and collections they point to, hidden ones included.';
