-- Repos with held events that wait for nothing but a lock, or have waited for another source long
-- enough; in no order, so that those that stay locked starve nobody.
--
-- A session keeps its plans, and one made while nothing was held would go through all that an old
-- snapshot keeps of what ever was. So this one is made anew each time, and the other functions that
-- look for held events do so by index.
--
-- Called by: sync.apply_events().
create or replace function sync_priv.due_repos(p_limit int)
  returns setof bigint
  language sql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set plan_cache_mode = force_custom_plan
  set jit = off
as $$
  select d.repo_id
    from (select h.repo_id from sync_priv.held_events h where h.is_due
          union
          select h.repo_id from sync_priv.held_events h where h.due_at <= sync_priv.clock()) d
   order by random()
   limit p_limit
$$;
comment on function sync_priv.due_repos(int) is 'Repos whose held events can be walked.';
