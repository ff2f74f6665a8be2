-- Forget a projection and where it stood; table and function stay. Waits for a batch that runs.
--
-- Called by: apps, operators.
-- Locks: the projection's row, its reader of the log.
-- Raises: SY501.
create or replace function sync.drop_projection(p_name text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections := sync_priv.own_projection(p_name, array['sync_owner']);
begin
  delete from sync.projections p where p.projection_id = v_projection.projection_id;
  delete from sync_priv.consumer_pending p where p.consumer_id = v_projection.consumer_id;
  delete from sync.consumers c where c.consumer_id = v_projection.consumer_id;
end
$$;
comment on function sync.drop_projection(text) is
  'Forget projection p_name; its table stays as it is. Raises SY501.';
