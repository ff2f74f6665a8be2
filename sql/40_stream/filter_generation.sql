-- The current filter generation.
--
-- Called by: lanes, to see if they have to reload.
create or replace function sync.filter_generation()
  returns bigint
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.generation from sync_priv.filter_state s
$$;
comment on function sync.filter_generation() is 'The current generation of the filters.';
