-- Log what happens to accounts: a new handle or PDS, a new status, and what follows from it
-- for the records. Becoming hidden takes them all away (`purge`), becoming visible brings them
-- back (`snapshot`, one a collection). Once a change, never for a repetition (AC-15, AC-18).
--
-- Called by: a statement trigger on sync.repos.
create or replace function sync_priv.log_repo_changes()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into sync_priv.pending_changes (xid, kind, repo_id, is_live, value)
  select pg_current_xact_id(), c.kind, n.repo_id, true,
         case c.kind
           when 'identity' then jsonb_build_object('handle', n.handle, 'pds', n.pds_url)
           else jsonb_build_object(
             'active', n.is_active and n.local_status is distinct from 'takendown',
             'status', case when n.local_status = 'takendown' then 'takendown'
                            else n.account_status end,
             'handle', n.handle)
         end
    from new_rows n
    join old_rows o using (repo_id)
    cross join lateral (values
      ('identity', (n.handle, n.pds_url) is distinct from (o.handle, o.pds_url)),
      ('account', (n.is_active, n.account_status, coalesce(n.local_status = 'takendown', false))
                  is distinct from
                  (o.is_active, o.account_status, coalesce(o.local_status = 'takendown', false)))
    ) as c (kind, is_new)
   where c.is_new and n.tracked_by is not null
   order by n.repo_id, c.kind desc;
  insert into sync_priv.pending_changes (xid, kind, repo_id)
  select pg_current_xact_id(), 'purge', n.repo_id
    from new_rows n
    join old_rows o using (repo_id)
   where o.tracked_by is not null and o.is_active
     and o.local_status is distinct from 'takendown'
     and not exists (select from sync_priv.visible_repos v where v.repo_id = n.repo_id);
  insert into sync_priv.pending_changes (xid, kind, repo_id, collection_id)
  select pg_current_xact_id(), 'snapshot', p.repo_id, p.collection_id
    from sync_priv.present_collections(array(
           select n.repo_id
             from new_rows n
             join old_rows o using (repo_id)
             join sync_priv.visible_repos v using (repo_id)
            where not (o.tracked_by is not null and o.is_active
                       and o.local_status is distinct from 'takendown'))) p
   where not exists (select from sync_priv.purges g
                      where g.collection_id = p.collection_id
                        and coalesce(g.repo_id, p.repo_id) = p.repo_id);
  return null;
end
$$;
comment on function sync_priv.log_repo_changes() is
  'Append identity and account changes to the log, with the purge or snapshots they imply.';

create or replace trigger log_repo_changes
  after update on sync.repos
  referencing old table as old_rows new table as new_rows
  for each statement execute function sync_priv.log_repo_changes();
