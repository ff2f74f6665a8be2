-- Show with a search why its embedder is asked again later; null when it works.
--
-- Called by: the service.
-- Locks: the search's row.
create or replace function sync.note_search_error(p_name text, p_error text)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.searches s
     set error = left(p_error, 500),
         error_at = case when p_error is null then null else sync_priv.clock() end
   where s.name = p_name and (s.error is not null or p_error is not null)
$$;
comment on function sync.note_search_error(text, text) is
  'Show with search p_name why its embedder is asked again; null when it works.';
