-- Log what anybody but the ingest functions writes to the records: a DELETE typed into psql is
-- a change like any other. The ingest functions log their own operations, every one and not
-- only the outcome, and switch this off for themselves (setting `sync.self_logged`). What is
-- hidden, or on its way out, is nobody's to hear of.
--
-- Called by: statement triggers on sync.stored_records.
-- Locks: the repos it touches, in repo_id order, so that it is serial with their ingest.
create or replace function sync_priv.log_record_changes()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    perform from sync.repos r where r.repo_id in (select n.repo_id from new_rows n)
      order by r.repo_id for no key update;
    insert into sync_priv.pending_changes
      (xid, kind, repo_id, collection_id, rkey, rev, cid, value, raw, reason)
    select pg_current_xact_id(), 'create', n.repo_id, n.collection_id, n.rkey, n.rev, n.cid,
           n.value, n.raw, n.reason
      from new_rows n join sync_priv.visible_repos v using (repo_id)
     where not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, n.repo_id) = n.repo_id
                          and p.collection_id = n.collection_id)
     order by n.repo_id, n.collection_id, n.rkey;
  elsif tg_op = 'DELETE' then
    perform from sync.repos r where r.repo_id in (select o.repo_id from old_rows o)
      order by r.repo_id for no key update;
    insert into sync_priv.pending_changes (xid, kind, repo_id, collection_id, rkey, rev)
    select pg_current_xact_id(), 'delete', o.repo_id, o.collection_id, o.rkey, o.rev
      from old_rows o join sync_priv.visible_repos v using (repo_id)
     where not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, o.repo_id) = o.repo_id
                          and p.collection_id = o.collection_id)
     order by o.repo_id, o.collection_id, o.rkey;
  else
    perform from sync.repos r
      where r.repo_id in (select o.repo_id from old_rows o union select n.repo_id from new_rows n)
      order by r.repo_id for no key update;
    -- A changed key is a delete and a create; an update that changes nothing is no change.
    insert into sync_priv.pending_changes
      (xid, kind, repo_id, collection_id, rkey, rev, cid, value, raw, reason)
    select pg_current_xact_id(),
           case when o.cid is null then 'create' when n.cid is null then 'delete' else 'update' end,
           coalesce(n.repo_id, o.repo_id), coalesce(n.collection_id, o.collection_id),
           coalesce(n.rkey, o.rkey), coalesce(n.rev, o.rev), n.cid, n.value, n.raw, n.reason
      from old_rows o
      full join new_rows n
        on (n.repo_id, n.collection_id, n.rkey) = (o.repo_id, o.collection_id, o.rkey)
      join sync_priv.visible_repos v on v.repo_id = coalesce(n.repo_id, o.repo_id)
     where (o.cid, o.value, o.raw) is distinct from (n.cid, n.value, n.raw)
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, v.repo_id) = v.repo_id
                          and p.collection_id = coalesce(n.collection_id, o.collection_id))
     order by n.cid is not null, 3, 4, 5;
  end if;
  return null;
end
$$;
comment on function sync_priv.log_record_changes() is
  'Append to the change log what was written to sync.stored_records by hand.';

create or replace trigger log_inserts
  after insert on sync.stored_records
  referencing new table as new_rows
  for each statement
  when (current_setting('sync.self_logged', true) is distinct from 'on')
  execute function sync_priv.log_record_changes();
create or replace trigger log_updates
  after update on sync.stored_records
  referencing old table as old_rows new table as new_rows
  for each statement
  when (current_setting('sync.self_logged', true) is distinct from 'on')
  execute function sync_priv.log_record_changes();
create or replace trigger log_deletes
  after delete on sync.stored_records
  referencing old table as old_rows
  for each statement
  when (current_setting('sync.self_logged', true) is distinct from 'on')
  execute function sync_priv.log_record_changes();
