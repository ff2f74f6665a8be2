-- The rule of visibility, in one place (AC-01): tracked, active upstream, not taken down here,
-- not on its way out. A single collection on its way out is a matter of the record views.
--
-- Called by: whatever logs or shows records.
create or replace view sync_priv.visible_repos as
select r.repo_id, r.did, r.handle
  from sync.repos r
 where r.tracked_by is not null
   and r.is_active
   and r.local_status is distinct from 'takendown'
   and not exists (select from sync_priv.purges p
                    where coalesce(p.repo_id, 0) = r.repo_id
                      and coalesce(p.collection_id, 0) = 0);
comment on view sync_priv.visible_repos is 'Repos whose records may be shown and logged.';
