-- Pause a projection, or let it run again, whatever state it is in. Waits for a batch that runs.
--
-- Called by: sync.pause_projection(), sync.resume_projection().
-- Locks: the projection's row.
-- Raises: SY501.
create or replace function sync_priv.change_projection(p_name text, p_state text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections := sync_priv.own_projection(p_name, array['sync_owner']);
begin
  update sync.projections p
     set state = p_state,
         error = case p_state when 'paused' then p.error end,
         error_key = case p_state when 'paused' then p.error_key end,
         error_at = case p_state when 'paused' then p.error_at end
   where p.projection_id = v_projection.projection_id;
  perform pg_notify('sync_changes', '');
end
$$;
comment on function sync_priv.change_projection(text, text) is
  'Put a projection into the state p_state. Raises SY501.';
