-- Log what happens to accounts: a new handle or PDS, a new status, and what follows from it
-- for the records. Becoming hidden takes them all away (`purge`), becoming visible brings them
-- back (`snapshot`, one a collection). Once a change of what holds here, never for a repetition
-- (AC-15, AC-18): while an account is taken down here, what upstream says of it changes nothing.
--
-- The plans are made once a session, by a first firing that often has no rows at all. A nested
-- loop over both transition tables would then be quadratic in a later one of a million: a full
-- join can only be hashed or merged.
--
-- Called by: a statement trigger on sync.repos.
create or replace function sync_priv.log_repo_changes()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_shown bigint[];
begin
  with changed as materialized (
    select n.repo_id, n.tracked_by, n.handle, n.pds_url,
           n.is_active and n.local_status is distinct from 'takendown' as is_active,
           case when n.local_status = 'takendown' then 'takendown' else n.account_status end
             as status,
           o.handle as old_handle, o.pds_url as old_pds_url,
           o.is_active and o.local_status is distinct from 'takendown' as old_is_active,
           case when o.local_status = 'takendown' then 'takendown' else o.account_status end
             as old_status
      from new_rows n
      full join old_rows o using (repo_id)
  )
  insert into sync_priv.pending_changes (xid, kind, repo_id, is_live, value)
  select pg_current_xact_id(), c.kind, n.repo_id, true,
         jsonb_build_object('handle', n.handle, 'pds', n.pds_url, 'active', n.is_active,
                            'status', n.status)
    from changed n
    cross join lateral (values
      ('identity', (n.handle, n.pds_url) is distinct from (n.old_handle, n.old_pds_url)),
      ('account', (n.is_active, n.status) is distinct from (n.old_is_active, n.old_status))
    ) as c (kind, is_new)
   where c.is_new and n.tracked_by is not null
   order by n.repo_id, c.kind desc;
  with changed as materialized (
    select o.repo_id, o.tracked_by, o.is_active, o.local_status
      from new_rows n
      full join old_rows o using (repo_id)
  )
  insert into sync_priv.pending_changes (xid, kind, repo_id)
  select pg_current_xact_id(), 'purge', o.repo_id
    from changed o
   where o.tracked_by is not null and o.is_active
     and o.local_status is distinct from 'takendown'
     and not exists (select from sync_priv.purges p
                      where coalesce(p.repo_id, 0) = o.repo_id
                        and coalesce(p.collection_id, 0) = 0)
     and not exists (select from sync_priv.visible_repos v where v.repo_id = o.repo_id);
  with changed as materialized (
    select o.repo_id, o.tracked_by, o.is_active, o.local_status
      from new_rows n
      full join old_rows o using (repo_id)
  )
  select array_agg(o.repo_id) into v_shown
    from changed o
    join sync_priv.visible_repos v using (repo_id)
   where not (o.tracked_by is not null and o.is_active
              and o.local_status is distinct from 'takendown');
  if v_shown is null then
    return null;
  end if;
  -- What was written while it was hidden is in no log: it has to be seen here.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'accounts can be shown again at the isolation level READ COMMITTED only'
      using errcode = 'SY107',
            hint = 'Another level may not see records that were written while they were hidden.';
  end if;
  insert into sync_priv.pending_changes (xid, kind, repo_id, collection_id)
  select pg_current_xact_id(), 'snapshot', p.repo_id, p.collection_id
    from sync_priv.present_collections(v_shown) p
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
