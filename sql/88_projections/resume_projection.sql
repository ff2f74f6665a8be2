-- Let a projection go on where it was paused or stopped by an error.
--
-- Called by: apps, operators.
-- Locks: the projection's row.
-- Raises: SY501.
create or replace function sync.resume_projection(p_name text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.change_projection(p_name, 'running');
end
$$;
comment on function sync.resume_projection(text) is
  'Let projection p_name go on after a pause or an error. Raises SY501.';
