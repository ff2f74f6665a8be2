-- Leave a projection as it is until it is resumed. Waits for a batch that runs.
--
-- Called by: apps, operators.
-- Locks: the projection's row.
-- Raises: SY501.
create or replace function sync.pause_projection(p_name text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.change_projection(p_name, 'paused');
end
$$;
comment on function sync.pause_projection(text) is
  'Leave projection p_name as it is until it is resumed. Raises SY501.';
