-- Take a projection for a rebuild: its reader of the log begins with every stored record again.
-- Waits for a batch that runs.
--
-- Called by: sync.rebuild_projection().
-- Locks: the projection's row, the row of its shard.
-- Raises: SY501; SY502 when its table, its function or this transaction does not do; 42501 in such
-- a function.
create or replace function sync_priv.begin_rebuild(
  p_name text,
  out token uuid, out target regclass, out apply regprocedure, out version text,
  out owner_name text)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections := sync_priv.own_projection(p_name, '{}');
  v_consumer   sync.consumers;
  v_flaw       text;
begin
  -- Whoever made a role is a member of it that may have none of its rights.
  if not pg_has_role(sync_priv.caller(), v_projection.owner_name, 'usage') then
    raise exception 'a rebuild of % needs the rights of %', quote_literal(p_name),
      v_projection.owner_name
      using errcode = 'SY501', hint = 'Work as that role, or as a member that inherits them.';
  end if;
  perform from sync.projections p
    where p.projection_id = v_projection.projection_id for no key update;
  -- The reader walks only where nothing is ahead of the log, as our own rows would be.
  if exists (select from sync_priv.log_markers m
              where m.xid = pg_current_xact_id_if_assigned()) then
    raise exception 'this transaction has changed what is logged'
      using errcode = 'SY502', hint = 'Rebuild in a transaction of its own.';
  end if;
  v_flaw := sync_priv.projection_flaw(v_projection);
  if v_flaw is not null then
    raise exception '%', v_flaw using errcode = 'SY502';
  end if;
  select c.* into v_consumer
    from sync.consumers c where c.consumer_id = v_projection.consumer_id;
  perform sync_priv.restart_projection(v_consumer, false);
  -- A rebuild mends what had stopped it.
  update sync.projections p
     set state = case p.state when 'failed' then 'running' else p.state end,
         error = null, error_key = null, error_at = null
   where p.projection_id = v_projection.projection_id;
  token := sync_priv.enter_run(v_projection.projection_id);
  select c.target, c.apply, c.version into target, apply, version
    from sync_priv.projection_code(v_projection) c;
  owner_name := v_projection.owner_name;
end
$$;
comment on function sync_priv.begin_rebuild(text) is
  'Take a projection for a rebuild; its reader begins anew. Raises SY501, SY502.';
