-- Bound what waits for a repo: 5,000 events, and 64 MiB of commits. Beyond that one marker stays
-- for all commits, a broken event with the highest rev. It stops the drain unless the export
-- contains that rev already. Of account, identity and rejected events the newest of each kind stay:
-- of the words of each host on an account the last good and the last bad one and the last deletion.
-- Repo by repo, by index: see sync_priv.due_repos(int).
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
     cross join lateral (
       -- As they are stored: nothing is unpacked to be measured.
       select count(*) as events,
              sum(coalesce(pg_column_size(n.ops), 0)
                  + coalesce(pg_column_size(n.commit_block), 0)) as bytes
         from (select h.ops, h.commit_block
                 from sync_priv.held_events h
                where h.repo_id = u.repo_id limit 5001) n) m
     where m.events > 5000 or m.bytes > 64 * 1024 * 1024
  ), surplus as (
    select n.held_id
      from crowded c
     cross join lateral (
       select e.held_id,
              e.kind in ('commit', 'sync', 'broken') or row_number() over (
                partition by e.kind, e.reason, e.is_active,
                             case e.kind when 'account' then (e.status = 'deleted')::text
                                         else e.status end
                    order by e.held_id desc) > 1 as is_surplus
         from sync_priv.held_events e
        where e.repo_id = c.repo_id) n
     where n.is_surplus
  ), gone as (
    delete from sync_priv.held_events h
     where h.held_id = any (array(
             select w.held_id from sync_priv.held_events w
              where w.held_id = any (array(select s.held_id from surplus s))
                for update skip locked))
    returning h.repo_id, h.kind, h.rev, h.is_due or h.due_at is not null as is_due
  )
  insert into sync_priv.held_events (repo_id, is_due, kind, rev, reason)
  select g.repo_id, bool_or(g.is_due), 'broken', max(g.rev), 'held_overflow'
    from gone g
   where g.kind in ('commit', 'sync', 'broken')
   group by g.repo_id
$$;
comment on function sync_priv.bound_held(bigint[]) is
  'Replace the waiting commits of a repo that has too many or too large ones by a marker.';
