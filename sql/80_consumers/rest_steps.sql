-- What stays pending of an item that a batch could not finish: everything beyond the last row
-- delivered. A whole repo becomes its single collections.
--
-- Called by: sync_priv.walk_steps().
create or replace function sync_priv.rest_steps(
  p_item_collection int,
  p_last            sync_priv.batch_step,
  p_collections     int[])
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step sync_priv.batch_step;
begin
  v_step.step := 'pend';
  v_step.repo_id := p_last.repo_id;
  v_step.rkey := coalesce(p_last.rkey, '');
  v_step.collection_id := case when p_last.kind = 'purge' then p_item_collection
                               else p_last.collection_id end;
  return next v_step;
  if p_item_collection <> 0 or p_last.kind = 'purge' then
    return;
  end if;
  v_step.rkey := '';
  for v_step.collection_id in
    select c from sync_priv.walk_collections(p_last.repo_id, 0, p_collections) as w (c)
     where c > p_last.collection_id
  loop
    return next v_step;
  end loop;
  v_step.step := 'done';
  v_step.collection_id := 0;
  return next v_step;
end
$$;
comment on function sync_priv.rest_steps(int, sync_priv.batch_step, int[]) is
  'The pending keys that are left of an item whose last delivered row is p_last.';
