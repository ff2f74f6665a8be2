-- Stop a projection with what stopped it. The others go on.
--
-- Called by: sync.run_projection().
-- Locks: the projection's row.
-- Raises: SY501.
create or replace function sync_priv.fail_projection(p_token uuid, p_error text, p_key text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections := sync_priv.run_of(p_token);
begin
  update sync.projections p
     set state = 'failed', error = left(p_error, 2000), error_key = left(p_key, 2000),
         error_at = sync_priv.clock()
   where p.projection_id = v_projection.projection_id;
end
$$;
comment on function sync_priv.fail_projection(uuid, text, text) is
  'Stop a projection with its error and the key it stopped at. Raises SY501.';
