-- Have the held events of some repos walked at the next chance. By index: see
-- sync_priv.due_repos(int).
--
-- Called by: sync_priv.hold_events().
create or replace function sync_priv.hasten_held(p_repo_ids bigint[])
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  update sync_priv.held_events h set is_due = true
   where h.repo_id = any (p_repo_ids) and not h.is_due
$$;
comment on function sync_priv.hasten_held(bigint[]) is
  'Have the held events of repos walked at the next chance.';
