-- Start a resync: forget nothing, fetch again.
--
-- Idempotent: a repo that waits for a fetch already is only moved to the front.
--
-- Called by: operators and apps.
-- Locks: the repos' rows, in repo_id order; their hosts, skip locked.
-- Raises: SY001 when a did is not tracked.
create or replace function sync.resync_repos(p_dids text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_missing text;
  v_count   bigint;
begin
  select d.did into v_missing
    from unnest(p_dids) as d (did)
   where not exists (select from sync.repos r where r.did = d.did and r.tracked_by = 'did')
   limit 1;
  if found then
    raise exception 'did % is not tracked', left(v_missing, 100)
      using errcode = 'SY001', hint = 'Track it with sync.track_repos() first.';
  end if;
  perform from sync.repos r where r.did = any (p_dids) order by r.repo_id for no key update;
  update sync.repos r
     set sync_state = case r.sync_state when 'pending' then 'pending' else 'desynchronized' end,
         next_fetch_at = sync_priv.clock(), attempts = 0, error = null
   where r.did = any (p_dids) and r.sync_state <> 'fetching';
  get diagnostics v_count = row_count;
  update sync.hosts h set ready_at = '-infinity'
   where h.host_id in (select l.host_id from sync.hosts l
                        where l.host_id in (select r.host_id from sync.repos r
                                             where r.did = any (p_dids))
                          and l.ready_at > sync_priv.clock()
                          for no key update skip locked);
  perform pg_notify('sync_work', '');
  return v_count;
end
$$;
comment on function sync.resync_repos(text[]) is
  'Fetch and reconcile the repos of p_dids again; returns how many wait for it now. Raises SY001.';
