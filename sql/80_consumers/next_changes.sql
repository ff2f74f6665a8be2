-- Work out one batch of a reader, without writing anything: what to deliver, what becomes pending
-- or no longer is, and where the shard stands then. This is the frontier rule:
--
--   1. H is the highest visible change id, P the shard's position.
--   2. Rows of the log in (P, P'] whose keys are not pending are delivered; a `snapshot` there
--      makes its (repo, collection) pending instead.
--   3. Only when P' = H, stored rows of pending keys are delivered: they are exact as of H.
--
-- STABLE, so that all its statements and those of the functions below share the snapshot of the
-- one statement that calls it: H, the log and the stored rows belong to the same moment. In a
-- volatile function each would see a newer one, and rows would be delivered ahead of the log.
--
-- A `purge` clears nothing: the reader holds no record of a pending key, before or after.
--
-- Called by: sync_priv.read_shard(), which holds the shard's row and applies the steps.
create or replace function sync_priv.next_changes(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_max_changes int)
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_head        bigint := greatest(sync_priv.log_head(), p_shard.position);
  v_repos       bigint[] := sync_priv.covered_repos(p_consumer.dids);
  v_collections int[] := sync_priv.covered_collections(p_consumer.collections);
  v_upto        bigint;
  v_is_cut      boolean;
  v_position    bigint;
  v_step        sync_priv.batch_step;
  v_count       int := 0;
begin
  v_upto := sync_priv.batch_end(p_consumer, p_shard, p_max_changes, v_head);
  -- A loop, since only the last row tells how far the log was read.
  for v_step in
    select * from sync_priv.log_steps(p_consumer, p_shard, v_upto, p_max_changes, v_repos,
                                      v_collections)
  loop
    return next v_step;
    v_count := v_count + 1;
  end loop;
  v_position := case when v_count < p_max_changes then v_upto else v_step.change_id end;
  return query
    select * from sync_priv.snapshot_steps(p_consumer, p_shard, v_position, v_repos,
                                           v_collections);
  v_is_cut := p_consumer.shards > 1 and exists (
    select from sync.changes c
     where c.repo_id is null and c.change_id = v_position and v_position > p_shard.position);
  if v_position = v_head and v_count < p_max_changes and not v_is_cut
     -- Our own changes have no number yet, so our own rows may be ahead of H.
     and not exists (select from sync_priv.log_markers m
                      where m.xid = pg_current_xact_id_if_assigned()) then
    return query
      select * from sync_priv.walk_steps(p_consumer, p_shard, v_position,
                                         p_max_changes - v_count, v_repos, v_collections);
  else
    return query
      select 'place', v_position, null, p_shard.frontier, null::int, null, null, null::bytea,
             null::boolean, null::jsonb, null::bytea, null, null::timestamptz;
  end if;
end
$$;
comment on function sync_priv.next_changes(sync.consumers, sync_priv.consumer_shards, int) is
  'The steps of one batch of a reader, by the frontier rule; reads only.';
