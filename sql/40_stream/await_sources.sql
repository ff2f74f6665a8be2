-- Let repos whose chain seems broken wait for what another source has to tell (CU-17).
--
-- Of several sources one is always ahead, and what it lost the others may still bring. So a break
-- counts once every enabled source that carries the repo has told of it at this rev or a later one,
-- or when the first of the waiting events has waited long enough. A PDS carries the repos that
-- live on it, a relay all of them.
--
-- Called by: sync_priv.walk_chain().
create or replace function sync_priv.await_sources(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  with broken as (
    select w.repo_id, min(w.rev) as rev
      from pg_temp.walk w
     where w.run = p_run and w.outcome = 'broken'
     group by w.repo_id
    having bool_and(w.source_id is not null)  -- events were given up for want of room
  ), waiting as (
    select b.repo_id, b.rev
      from broken b
      join sync.repos r using (repo_id)
     where not exists (select from sync_priv.held_of(array[b.repo_id]) h
                        where h.due_at <= sync_priv.clock())
       and exists (
         select from sync.sources s
          where s.is_enabled
            and (s.kind = 'relay' or s.url = regexp_replace(r.pds_url, '^http', 'ws'))
            and not exists (
              select from pg_temp.walk t
               where t.repo_id = b.repo_id and t.source_id = s.source_id and t.rev >= b.rev))
  )
  -- Also what is told twice: who has told is not to be forgotten.
  update pg_temp.walk w
     set outcome = 'early'
    from waiting b
   where w.run = p_run and w.repo_id = b.repo_id and w.outcome in ('broken', 'stale')
     and w.rev >= b.rev;
end
$$;
comment on function sync_priv.await_sources(bigint) is
  'Turn broken into early where another source may still tell what one run of pg_temp.walk lacks.';
