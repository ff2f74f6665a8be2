-- Apply one run of account and identity events; they do not wait for a fetch.
--
-- The last word on an account counts; only a change is one (AC-18). While it is not active a
-- fetch that runs is worth nothing (its generation is over), and when it is active again the
-- chain is presumed broken (AC-07). An identity event is a hint to look again (MT-07). A
-- rejected message is remembered until the identity changes (D-03, A-21), and has it looked up:
-- the lane may not have been allowed to ask (SG-09). At once, unless that was done a moment ago,
-- and then within a minute.
--
-- Called by: sync_priv.walk_events().
create or replace function sync_priv.walk_statuses(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from pg_temp.walk w
                  where w.run = p_run and w.kind in ('account', 'identity', 'rejected')) then
    return;
  end if;
  update sync.repos r
     set is_active = a.is_active,
         account_status = a.status,
         sync_state = case
           when r.sync_state = 'fetching' and not a.is_active then 'desynchronized'
           when r.sync_state = 'synchronized' and a.is_active and not r.is_active
             then 'desynchronized'
           else r.sync_state
         end,
         next_fetch_at = case when a.is_active and not r.is_active then sync_priv.clock()
                              else r.next_fetch_at end
    from (select distinct on (w.repo_id) w.repo_id, w.is_active, w.status
            from pg_temp.walk w
           where w.run = p_run and w.kind = 'account'
           order by w.repo_id, w.pos desc) a
   where r.repo_id = a.repo_id
     and (r.is_active, r.account_status) is distinct from (a.is_active, a.status);
  update sync.repos r
     set is_identity_stale = true, identity_checked_at = null
   where r.repo_id in (select w.repo_id from pg_temp.walk w
                        where w.run = p_run and w.kind = 'identity');
  update sync.repos r
     set rejected_at = sync_priv.clock(), is_identity_stale = true,
         identity_checked_at = case
           when r.identity_checked_at > sync_priv.clock() - interval '6 seconds'
             then r.identity_checked_at
         end
   where r.repo_id in (select w.repo_id from pg_temp.walk w
                        where w.run = p_run and w.kind = 'rejected');
  update pg_temp.walk w set outcome = 'status'
   where w.run = p_run and w.kind in ('account', 'identity', 'rejected');
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync_priv.walk_statuses(bigint) is
  'Apply the account and identity events of one run of pg_temp.walk.';
