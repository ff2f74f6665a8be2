-- The change log as text, for people and tools; apps use a consumer, which is exact.
--
-- Records of accounts that are hidden by now are left out; what happened to the accounts is not.
-- `change_id` is there for ranges: `where change_id > 1000` reads only those rows. It comes in that
-- order, since an `order by` and `limit` of the reader do not get past the security barrier: the
-- first thousand rows would be found by sorting all of them.
create or replace view sync.change_log with (security_barrier) as
select c.change_id,
       (l.log_epoch || '.' || c.change_id) collate "C" as position,
       c.kind,
       r.did,
       n.nsid as collection,
       c.rkey,
       c.rev,
       sync_priv.cid_text(c.cid) collate "C" as cid,
       c.is_live,
       c.value,
       c.raw,
       c.reason,
       c.logged_at
  from sync.changes c
  cross join sync_priv.log_state l
  left join sync.repos r on r.repo_id = c.repo_id
  left join sync.collections n on n.collection_id = c.collection_id
 where c.kind in ('purge', 'account', 'identity')
    -- A scalar, since EXISTS may become a hash of every repo before the first row comes.
    or ((select true from sync_priv.visible_repos v where v.repo_id = c.repo_id)
        and not exists (select from sync_priv.purges p
                         where coalesce(p.repo_id, 0) in (0, c.repo_id)
                           and coalesce(p.collection_id, 0) = c.collection_id))
 order by c.change_id;
comment on view sync.change_log is 'The change log in commit order, ids as text.';
comment on column sync.change_log.position is
  'epoch.change_id, as read_changes shows it; grows within a log epoch.';
