-- Show with a projection why its last batch is tried again. Waits for nobody: whoever is at it has
-- something newer to say.
--
-- Called by: the service.
-- Locks: the projection's row, skip locked.
create or replace function sync.note_projection_error(p_name text, p_error text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.projections p
     set error = left(p_error, 2000), error_key = null, error_at = sync_priv.clock()
   where p.projection_id = (select o.projection_id from sync.projections o
                             where o.name = p_name and o.state = 'running'
                               for no key update skip locked)
$$;
comment on function sync.note_projection_error(text, text) is
  'Show with projection p_name why its last batch is tried again.';
