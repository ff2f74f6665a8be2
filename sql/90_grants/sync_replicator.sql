-- What logical replication may read: the stored rows as they are, those of hidden accounts too.
grant usage on schema sync, sync_priv to sync_replicator;
grant select on sync.stored_records, sync.repos, sync.collections, sync.changes to sync_replicator;
grant execute on function sync_priv.cid_text(bytea), sync_priv.base32_pair(int) to sync_replicator;
