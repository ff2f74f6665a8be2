-- Delete one chunk of a purge; when none of its rows is left, the purge itself. Repos go a
-- hundred at a time: most are small, and who untracks a million of them leaves a million purges.
--
-- The rows are hidden already and the log has its `purge` row, so nothing is logged here. The
-- first call only remembers which transactions run: one of them may have read the old filters
-- and still write what has to go, so deleting starts when all of them have ended. A purge of a
-- collection goes through the repos in order, since no index leads from a collection to its rows.
--
-- Called by: sync.maintain(), one at a time.
create or replace function sync_priv.purge_chunk()
  returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk constant int := 5000;
  v_purge   sync_priv.purges%rowtype;
  v_repos   bigint[];
  v_done    bigint[];
  v_deleted bigint;
begin
  -- An xid of the future was settled in another cluster: a restored purge settles again.
  update sync_priv.purges p set settled_xid = pg_snapshot_xmax(pg_current_snapshot())
   where p.settled_xid is null or p.settled_xid > pg_snapshot_xmax(pg_current_snapshot());
  select * into v_purge
    from sync_priv.purges p
   where p.settled_xid <= pg_snapshot_xmin(pg_current_snapshot())
   order by p.purge_id
   limit 1;
  if not found then
    return false;
  end if;
  if v_purge.repo_id is null then
    v_repos := array(select r.repo_id from sync.repos r
                      where r.repo_id > v_purge.repo_after
                      order by r.repo_id limit 1000);
  else
    select array_agg(b.purge_id), array_agg(b.repo_id order by b.purge_id)
      into v_done, v_repos
      from (select p.purge_id, p.repo_id
              from sync_priv.purges p
             where p.settled_xid <= pg_snapshot_xmin(pg_current_snapshot())
               and p.purge_id >= v_purge.purge_id and p.repo_id is not null
               and p.collection_id is not distinct from v_purge.collection_id
             order by p.purge_id
             limit 100) b;
  end if;
  perform set_config('sync.self_logged', 'on', true);
  delete from sync.stored_records s
   where (s.repo_id, s.collection_id, s.rkey) in (
           select g.repo_id, g.collection_id, g.rkey
             from unnest(v_repos) as u (repo_id)
             cross join lateral (
               select x.repo_id, x.collection_id, x.rkey
                 from sync.stored_records x
                where x.repo_id = u.repo_id
                  and (v_purge.collection_id is null
                       or x.collection_id = v_purge.collection_id)
                limit v_chunk) g
            limit v_chunk);
  get diagnostics v_deleted = row_count;
  perform set_config('sync.self_logged', '', true);
  if v_purge.repo_id is not null then
    -- A lane that had read the old filters may have held events for a repo that is not ours now.
    with done as (
      delete from sync_priv.purges p
       where p.purge_id = any (v_done)
         and not exists (select from sync.stored_records x
                          where x.repo_id = p.repo_id
                            and (p.collection_id is null or x.collection_id = p.collection_id))
      returning p.repo_id
    )
    delete from sync_priv.held_events e
     using done d, sync.repos r
     where e.repo_id = d.repo_id and r.repo_id = e.repo_id and r.tracked_by is null;
    perform pg_notify('sync_work', '');
  elsif v_repos = '{}' then
    delete from sync_priv.purges p where p.purge_id = v_purge.purge_id;
    update sync.collections c
       set is_purged = not sync_priv.is_tracked_nsid(c.nsid)
     where c.collection_id = v_purge.collection_id;
    perform pg_notify('sync_work', '');
  elsif v_deleted < v_chunk then
    update sync_priv.purges p
       set repo_after = v_repos[cardinality(v_repos)]
     where p.purge_id = v_purge.purge_id;
  end if;
  return true;
end
$$;
comment on function sync_priv.purge_chunk() is
  'Delete up to 5,000 records of the oldest purge; true when there is more to do.';
