-- What apps read: the records of visible accounts (AC-01), ids as text.
--
-- Runs with its owner's rights behind a security barrier: a reader has no base table, and no
-- function of his is called with a row he may not see. Conditions on did, collection and rkey
-- still reach the primary key; an ad-hoc condition on `value` never gets an index.
create or replace view sync.records with (security_barrier) as
select v.did,
       v.handle,
       c.nsid as collection,
       s.rkey,
       ('at://' || v.did || '/' || c.nsid || '/' || s.rkey) collate "C" as uri,
       sync_priv.cid_text(s.cid) collate "C" as cid,
       s.rev,
       s.value,
       s.raw,
       s.reason,
       s.indexed_at
  from sync.stored_records s
  join sync_priv.visible_repos v on v.repo_id = s.repo_id
  join sync.collections c on c.collection_id = s.collection_id
 -- Two probes of a small index, rather than one condition that no index serves.
 where not exists (select from sync_priv.purges p
                    where coalesce(p.repo_id, 0) = 0
                      and coalesce(p.collection_id, 0) = s.collection_id)
   and not exists (select from sync_priv.purges p
                    where coalesce(p.repo_id, 0) = s.repo_id
                      and coalesce(p.collection_id, 0) = s.collection_id);
comment on view sync.records is 'The records of visible accounts, one row a record.';
comment on column sync.records.handle is 'Verified both ways, else ''handle.invalid''.';
comment on column sync.records.value is
  'The record as atproto JSON; null where jsonb cannot hold it, see raw and reason.';
comment on column sync.records.indexed_at is 'When this version was stored here.';
