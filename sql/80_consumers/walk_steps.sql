-- Deliver stored rows of pending keys, and move the frontier over the repos that had their turn.
--
-- The caller has made sure that the log is read up to p_head in this very snapshot. A repo that
-- does not fit leaves its other collections pending. A hidden repo is passed over: when it
-- becomes visible, the log says so.
--
-- Called by: sync_priv.next_changes().
create or replace function sync_priv.walk_steps(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_head        bigint,
  p_room        int,
  p_repos       bigint[],
  p_collections int[])
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit      int := greatest(p_room, 100);
  v_room       int := p_room;
  v_frontier   bigint := p_shard.frontier;
  v_items      int := 0;
  v_item       record;
  v_collection int;
  v_count      int;
  v_step       sync_priv.batch_step;
begin
  -- Loops, since what one item delivers decides how much room is left for the next.
  for v_item in select * from sync_priv.walk_items(p_consumer, p_shard, p_head, v_limit, p_repos)
  loop
    exit when v_room <= 0;
    v_items := v_items + 1;
    v_step := row('deliver', p_head, 'purge', v_item.repo_id, nullif(v_item.collection_id, 0),
                  null, null, null, false, null, null, null, sync_priv.clock());
    if v_item.owes_purge then
      return next v_step;
      v_room := v_room - 1;
    end if;
    for v_collection in
      select v_item.collection_id where v_item.collection_id <> 0
      union all
      select w.collection_id
        from sync_priv.walk_collections(v_item.repo_id, p_collections) as w (collection_id)
       where v_item.collection_id = 0
    loop
      return query
        select * from sync_priv.walk_collection(v_item.repo_id, v_collection, v_item.after_rkey,
                                                p_head, v_room);
      get diagnostics v_count = row_count;
      v_room := v_room - (v_count - 1);
    end loop;
    if v_item.is_frontier then
      v_frontier := v_item.repo_id;
    elsif v_item.collection_id = 0 then
      v_step.step := 'done';
      v_step.collection_id := 0;
      return next v_step;
    end if;
  end loop;
  if v_room > 0 and v_items < v_limit then
    v_frontier := null;
  end if;
  v_step := null;
  v_step.step := 'place';
  v_step.change_id := p_head;
  v_step.repo_id := v_frontier;
  return next v_step;
end
$$;
comment on function sync_priv.walk_steps(sync.consumers, sync_priv.consumer_shards, bigint, int,
  bigint[], int[]) is 'Deliver stored rows of pending keys, and move the frontier.';
