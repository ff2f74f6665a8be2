-- Keep at most 5,000 waiting events a repo: beyond that one marker stays, a broken event with the
-- highest rev. It stops the drain unless the export already contains that rev. Account and
-- identity events are few and stay. Repo by repo, by index: see sync_priv.due_repos(int).
--
-- Called by: sync_priv.hold_events(), sync.apply_events().
-- Locks: the rows it removes, skip locked: a reconcile may be draining them.
create or replace function sync_priv.bound_held(p_repo_ids bigint[])
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  with crowded as (
    select u.repo_id
      from unnest(p_repo_ids) as u (repo_id)
     where 5000 < (select count(*)
                     from (select from sync_priv.held_events h
                            where h.repo_id = u.repo_id limit 5001) n)
  ), gone as (
    delete from sync_priv.held_events h
     where h.held_id = any (array(
             select w.held_id
               from crowded c
              cross join lateral (
                select e.held_id
                  from sync_priv.held_events e
                 where e.repo_id = c.repo_id and e.kind in ('commit', 'sync', 'broken')
                   for update skip locked) w))
    returning h.repo_id, h.rev, h.is_due or h.due_at is not null as is_due
  )
  insert into sync_priv.held_events (repo_id, is_due, kind, rev, reason)
  select g.repo_id, bool_or(g.is_due), 'broken', max(g.rev), 'held_overflow'
    from gone g
   group by g.repo_id
$$;
comment on function sync_priv.bound_held(bigint[]) is
  'Replace the waiting commits of a repo that has more than 5,000 by a marker.';
