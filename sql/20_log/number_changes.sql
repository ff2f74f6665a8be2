-- Give the changes of this transaction their place in the log: commit order.
--
-- Runs at COMMIT, as late as it can. The first firing only queues the marker again, so that an
-- app's own deferred constraints (which may wait for other rows) run before the log's lock is
-- taken, not under it. The second takes the lock, numbers, moves the rows and notifies; the lock
-- goes when the commit is visible, so whoever sees change n sees every change before it.
-- A statement that appended no row, or whose rows were rolled back, leaves a marker all the same:
-- such a transaction takes no lock and wakes nobody.
-- Who wrote to a collection while it was untracked in another transaction, which committed first,
-- comes after its `purge`: what is on its way out is dropped here, where the order is known.
-- A transaction that keeps one snapshot may not see that purge: locking the collection makes it
-- fail, to be tried again (40001). One that is locked is being untracked, and comes after us.
-- By index only, for a plan made while the pending rows were few would scan all that an old
-- snapshot (a dump) keeps since; and without JIT, which takes the price of "never" for work.
-- The NOTIFY also makes PostgreSQL refuse PREPARE TRANSACTION, which would keep the lock.
--
-- Called by: a deferred constraint trigger on sync_priv.log_markers.
-- Locks: advisory (7261, 1), to the end of the transaction; nothing is awaited under it.
create or replace function sync_priv.number_changes()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_last  bigint;
  v_count bigint;
begin
  if not exists (select from sync_priv.pending_changes p where p.xid = new.xid) then
    delete from sync_priv.log_markers m where m.xid = new.xid;
    return null;
  end if;
  if new.round = 1 then
    update sync_priv.log_markers m set round = 2 where m.xid = new.xid;
    return null;
  end if;
  perform pg_advisory_xact_lock(7261, 1);
  if current_setting('transaction_isolation') <> 'read committed' then
    perform from sync.collections c
     where c.collection_id in (select p.collection_id from sync_priv.pending_changes p
                                where p.xid = new.xid)
       for share skip locked;
  end if;
  delete from sync_priv.pending_changes p
   where p.xid = new.xid and p.kind in ('create', 'update', 'delete', 'snapshot')
     and p.collection_id in (select g.collection_id from sync_priv.purges g
                              where coalesce(g.repo_id, 0) = 0);
  perform sync_priv.open_epoch();
  select last_value into v_last from sync_priv.change_ids;
  select count(*) into v_count from sync_priv.pending_changes p where p.xid = new.xid;
  perform sync_priv.make_partitions(v_last + 1, v_last + v_count);
  insert into sync.changes (change_id, kind, repo_id, collection_id, rkey, rev, cid, is_live,
                            value, raw, reason, logged_at)
  select v_last + row_number() over (order by p.pending_id),
         p.kind, p.repo_id, p.collection_id, p.rkey, p.rev, p.cid, p.is_live,
         p.value, p.raw, p.reason, sync_priv.clock()
    from sync_priv.pending_changes p
   where p.xid = new.xid;
  delete from sync_priv.pending_changes p where p.xid = new.xid;
  delete from sync_priv.log_markers m where m.xid = new.xid;
  perform setval('sync_priv.change_ids', v_last + v_count);
  perform pg_notify('sync_changes', '');
  return null;
end
$$;
comment on function sync_priv.number_changes() is
  'Number the pending changes of the committing transaction and move them into sync.changes.';

-- A constraint trigger cannot be replaced; its function can.
do $$
begin
  if not exists (select from pg_catalog.pg_trigger
                  where tgrelid = 'sync_priv.log_markers'::regclass
                    and tgname = 'number_changes') then
    create constraint trigger number_changes
      after insert or update on sync_priv.log_markers
      deferrable initially deferred
      for each row execute function sync_priv.number_changes();
  end if;
end
$$;
