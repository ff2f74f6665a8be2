-- The projection that this transaction runs under a token.
--
-- Called by: sync_priv.take_changes(), sync_priv.fail_projection().
-- Raises: SY501 for any other token.
create or replace function sync_priv.run_of(p_token uuid)
  returns sync.projections
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections;
begin
  select p.* into v_projection
    from sync_priv.projection_runs r
    join sync.projections p using (projection_id)
   where r.xid = pg_current_xact_id_if_assigned() and r.token = p_token;
  if not found then
    raise exception 'no projection runs under this token' using errcode = 'SY501';
  end if;
  return v_projection;
end
$$;
comment on function sync_priv.run_of(uuid) is
  'The projection that this transaction runs under p_token. Raises SY501.';
