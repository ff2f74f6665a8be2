-- Put the repos back in line whose fetch is given up, or belongs to a session that is gone (BF-14).
-- What was held stays and is walked at the next chance.
--
-- Called by: sync.recover_fetches(), sync.maintain().
-- Locks: the repos, skip locked, in repo_id order.
create or replace function sync_priv.recover_lost_fetches()
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[] := array(
    select r.repo_id
      from sync.repos r
     where r.sync_state = 'fetching'
       and (r.fetch_token < (select s.first_token from sync_priv.fetch_state s)
            -- Looked at behind the snapshot: what that shows as claimed was locked before.
            -- A claim of an older version, before the upgrade, names nobody.
            or coalesce(r.fetcher_id, 0)
               <> all (array(select f.fetcher_id from sync_priv.fetchers() f)))
     order by r.repo_id
       for no key update of r skip locked);
begin
  if v_ids = '{}' then
    return 0;
  end if;
  update sync.repos r
     set sync_state = 'desynchronized', next_fetch_at = sync_priv.clock()
   where r.repo_id = any (v_ids);
  update sync_priv.held_events h set is_due = true
   where h.repo_id = any (v_ids) and not h.is_due;
  perform pg_notify('sync_work', '');
  return cardinality(v_ids);
end
$$;
comment on function sync_priv.recover_lost_fetches() is
  'Put repos whose fetch belongs to a service that is gone back in line; returns how many.';
