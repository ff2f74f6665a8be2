-- One held event, with its contents; none for null. By index: see sync_priv.due_repos(int).
--
-- Called by: sync_priv.applied_ops(), sync_priv.apply_ops(), for each held commit that is applied.
create or replace function sync_priv.held_event(p_held_id bigint)
  returns setof sync_priv.held_events
  language sql
  stable
  strict
  rows 1
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  select h.* from sync_priv.held_events h where h.held_id = p_held_id
$$;
comment on function sync_priv.held_event(bigint) is 'A held event.';
