-- Remove held events that were walked, and let those that wait for a fetch, or for another source,
-- wait for that alone. By index: see sync_priv.due_repos(int).
--
-- Called by: sync_priv.hold_events().
create or replace function sync_priv.forget_held(
    p_walked bigint[], p_waiting bigint[], p_early bigint[])
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  delete from sync_priv.held_events h where h.held_id = any (p_walked);
  update sync_priv.held_events h set is_due = false, due_at = null
   where h.held_id = any (p_waiting) and (h.is_due or h.due_at is not null);
  update sync_priv.held_events h
     set is_due = false, due_at = sync_priv.clock() + sync_priv.patience()
   where h.held_id = any (p_early) and (h.is_due or h.due_at is null)
$$;
comment on function sync_priv.forget_held(bigint[], bigint[], bigint[]) is
  'Remove the held events p_walked; p_waiting are due no more, p_early when their time is up.';
