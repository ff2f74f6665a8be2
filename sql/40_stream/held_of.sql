-- The held events of some repos, without their contents. By index: see sync_priv.due_repos(int).
--
-- Called by: sync_priv.walk_events(), sync_priv.await_sources().
create or replace function sync_priv.held_of(p_repo_ids bigint[])
  returns table (repo_id bigint, held_id bigint, kind text, rev text, since text, prev_data bytea,
                 data_cid bytea, is_active boolean, status text, reason text, source_id int,
                 due_at timestamptz)
  language sql
  stable
  rows 10
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  select h.repo_id, h.held_id, h.kind, h.rev, h.since, h.prev_data, h.data_cid, h.is_active,
         h.status, h.reason, h.source_id, h.due_at
    from sync_priv.held_events h
   where h.repo_id = any (p_repo_ids)
$$;
comment on function sync_priv.held_of(bigint[]) is 'The held events of repos.';
