-- The projections that the service has to run.
--
-- Called by: the service.
create or replace function sync.running_projections()
  returns setof text
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select p.name from sync.projections p where p.state = 'running' order by p.projection_id
$$;
comment on function sync.running_projections() is 'The names of the projections that are to run.';
