-- What a subscriber may read for its first copy: what the publications carry, as it is stored, that
-- of hidden accounts too. (What is streamed later PostgreSQL sends to whoever has REPLICATION, an
-- attribute of a login that comes with no role.)
grant usage on schema sync, sync_priv to sync_replicator;
grant select on sync.stored_records, sync.repos, sync.collections, sync.changes to sync_replicator;
grant execute on function sync_priv.cid_text(bytea), sync_priv.base32_pair(int) to sync_replicator;

-- The epoch that positions begin with; it is in no publication.
grant select (log_epoch, log_floor) on sync_priv.log_state to sync_replicator;
