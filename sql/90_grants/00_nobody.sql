-- Start from nothing: what is granted below is everything anybody has.
--
-- A function may be executed by everybody until that is revoked; tables and views are private
-- from the start, but an older version may have granted more than this one does.
revoke all on schema sync, sync_priv, sync_stage
  from public, sync_ingester, sync_reader, sync_replicator;
revoke all on all routines in schema sync, sync_priv, sync_stage
  from public, sync_ingester, sync_reader, sync_replicator;
revoke all on all tables in schema sync, sync_priv, sync_stage
  from public, sync_ingester, sync_reader, sync_replicator;
revoke all on all sequences in schema sync, sync_priv, sync_stage
  from public, sync_ingester, sync_reader, sync_replicator;
revoke all on all functions in schema sync_migration from public;

-- Operators are the members of sync_owner. Only they track, untrack and resync, take down and
-- restore: the functions are theirs, so there is nothing to grant. An app that is to do so
-- becomes a member, or calls a SECURITY DEFINER function of theirs.
