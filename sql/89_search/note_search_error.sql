-- Show with a search why its embedder is asked again later; null when it works. Waits for nobody:
-- who has the row is about to drop it.
--
-- Called by: the service.
-- Locks: the search's row, skip locked.
create or replace function sync.note_search_error(p_name text, p_error text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.searches s
     set error = left(p_error, 500),
         error_at = case when p_error is null then null else sync_priv.clock() end
   where s.search_id = (select o.search_id from sync.searches o
                         where o.name = p_name and (o.error is not null or p_error is not null)
                           for no key update skip locked)
$$;
comment on function sync.note_search_error(text, text) is
  'Show with search p_name why its embedder is asked again; null when it works.';
