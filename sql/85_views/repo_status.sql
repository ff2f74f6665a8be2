-- Every repo that is or was tracked: its state, its head and what it waits for.
create or replace view sync.repo_status with (security_barrier) as
select r.did,
       r.handle,
       r.pds_url,
       r.sync_state,
       r.tracked_by,
       exists (select from sync_priv.visible_repos v where v.repo_id = r.repo_id) as is_visible,
       r.is_active,
       r.account_status,
       r.local_status,
       h.rev,
       h.seen_rev,
       sync_priv.cid_text(h.data_cid) collate "C" as data_cid,
       h.trust,
       (select count(*) from sync_priv.held_events e where e.repo_id = r.repo_id) as held_events,
       r.error,
       r.attempts,
       r.next_fetch_at,
       r.synchronized_at,
       -- Where lookups fail it lies in the future, to put the next one off.
       least(r.identity_checked_at, sync_priv.clock()) as identity_checked_at,
       r.created_at,
       r.updated_at
  from sync.repos r
  left join sync.heads h on h.repo_id = r.repo_id;
comment on view sync.repo_status is 'State, head and plans of every repo; tombstones too.';
comment on column sync.repo_status.is_visible is 'Its records are shown in sync.records.';
comment on column sync.repo_status.held_events is 'Events that wait for a fetch to end.';
