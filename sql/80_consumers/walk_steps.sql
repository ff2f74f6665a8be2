-- Deliver stored rows of pending keys, and move the frontier over the repos that had their turn.
--
-- The caller has made sure that the log is read up to p_head in this very snapshot. The loop
-- ends at the first row that does not fit: the items before it are done, and of the one it is in
-- the rest stays pending.
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
  v_room     int := p_room;
  v_frontier bigint := p_shard.frontier;
  v_items    bigint := 0;
  v_row      record;
  v_step     sync_priv.batch_step;  -- the last one delivered
  v_open     sync_priv.batch_step;  -- the item it belongs to; null once that has its own step
begin
  for v_row in
    select * from sync_priv.walk_rows(p_consumer, p_shard, p_head, p_room, p_repos, p_collections)
  loop
    if v_row.item <> v_items and v_open.step is not null then
      return next v_open;
      v_open := null;
    end if;
    if v_room = 0 and v_row.kind is not null then
      if v_row.item = v_items then
        return query
          select * from sync_priv.rest_steps(v_row.item_collection, v_step, p_collections);
      end if;
      v_items := null;
      exit;
    end if;
    v_items := v_row.item;
    if v_row.is_frontier then
      v_frontier := v_row.item_repo;
    else
      v_open.step := 'done';
      v_open.repo_id := v_row.item_repo;
      v_open.collection_id := v_row.item_collection;
    end if;
    continue when v_row.kind is null;
    v_step := row('deliver', p_head, v_row.kind, v_row.item_repo, v_row.collection_id, v_row.rkey,
                  v_row.rev, v_row.cid, false, v_row.value, v_row.raw, v_row.reason,
                  v_row.logged_at);
    return next v_step;
    v_room := v_room - 1;
  end loop;
  if v_items is not null then
    if v_open.step is not null then
      return next v_open;
    end if;
    -- Fewer items than asked for: there is no repo beyond them.
    v_frontier := case when v_items >= greatest(p_room / 4, 100) then v_frontier end;
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
