-- Give the NSIDs of one run's operations their ids, as far as the repos' quotas go.
--
-- The commit that goes beyond becomes `broken`, and what comes after it: the repo is fetched again,
-- and loads if its records of now are within the quota. So whoever makes collections only to empty
-- them again pays for each with his budget of breaks.
--
-- Called by: sync_priv.apply_ops(). Nearly always nothing is new.
-- Locks: see sync_priv.intern_brought().
create or replace function sync_priv.intern_ops(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_repo_ids bigint[];
  v_nsids    text[];
  v_places   bigint[];
begin
  select array_agg(n.repo_id), array_agg(n.collection), array_agg(n.pos)
    into v_repo_ids, v_nsids, v_places
    from (select o.repo_id, o.collection, min(o.pos) as pos
            from sync_priv.applied_ops(p_run) o
           where not exists (select from sync.collections c where c.nsid = o.collection)
           group by o.repo_id, o.collection) n
   where sync_priv.is_tracked_nsid(n.collection);
  if v_nsids is null then
    return;
  end if;
  update pg_temp.walk w
     set outcome = 'broken',
         reason = case when w.pos = c.pos then 'too_many_collections' else w.reason end
    from (select n.repo_id, min(n.pos) as pos
            from (select u.repo_id, u.pos,
                         row_number() over (partition by u.repo_id order by u.pos) as number
                    from unnest(v_repo_ids, v_places) as u (repo_id, pos)) n
            left join sync_priv.brought_collections b using (repo_id)
           where coalesce(b.collections, 0) + n.number > sync_priv.collection_quota()
           group by n.repo_id) c
   where w.run = p_run and w.repo_id = c.repo_id and w.pos >= c.pos and w.outcome = 'applied';
  perform sync_priv.intern_brought(array_agg(u.repo_id), array_agg(u.nsid))
     from unnest(v_repo_ids, v_nsids, v_places) as u (repo_id, nsid, pos)
     join pg_temp.walk w on (w.repo_id, w.pos) = (u.repo_id, u.pos)
    where w.run = p_run and w.outcome = 'applied';
end
$$;
comment on function sync_priv.intern_ops(bigint) is
  'Give NSIDs of one run of pg_temp.walk their ids; commits over the quota become broken.';
