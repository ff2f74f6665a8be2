-- Take a running projection for this transaction, and see that its table and function still do.
-- No row when it does not run, or somebody else is at it.
--
-- `version` is the very row of the function in the catalog: who calls it compares that afterwards.
--
-- Called by: sync.run_projection().
-- Locks: the projection's row, skip locked.
-- Raises: SY501, 42501 in the function of a projection.
create or replace function sync_priv.claim_projection(
  p_name text,
  out token uuid, out target regclass, out apply regprocedure, out version text)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections :=
    sync_priv.own_projection(p_name, array['sync_owner', 'sync_ingester']);
  v_flaw       text;
begin
  select p.* into v_projection
    from sync.projections p
   where p.projection_id = v_projection.projection_id and p.state = 'running'
     for no key update skip locked;
  if not found then
    return;
  end if;
  v_flaw := sync_priv.projection_flaw(v_projection);
  if v_flaw is not null then
    update sync.projections p
       set state = 'failed', error = v_flaw, error_key = null, error_at = sync_priv.clock()
     where p.projection_id = v_projection.projection_id;
    return;
  end if;
  token := sync_priv.enter_run(v_projection.projection_id);
  select c.target, c.apply, c.version into target, apply, version
    from sync_priv.projection_code(v_projection) c;
end
$$;
comment on function sync_priv.claim_projection(text) is
  'Table, function, the function''s catalog row and a token for a projection that nobody else runs.
Raises SY501.';
