-- Forget a search with its texts and embeddings. Waits for who is reading them.
--
-- Called by: operators.
-- Locks: advisory (7261, 6); its table.
-- Raises: SY602.
create or replace function sync.disable_search(p_name text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(7261, 6);
  delete from sync.searches s where s.name = p_name;
  if not found then
    raise exception 'there is no search %', left(quote_nullable(p_name), 100)
      using errcode = 'SY602', hint = 'sync.list_searches() shows which there are.';
  end if;
  perform sync.drop_projection(s.name)
     from sync.projection_status s where s.name = 'search ' || p_name;
  execute format('drop function if exists sync_search.%I(real[], int), '
                 'sync_search.%I(regclass, sync.change[]), sync_search.%I(jsonb, bytea, text)',
                 p_name || '__find', p_name || '__apply', p_name || '__text');
  execute format('drop table if exists sync_search.%I', p_name);
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync.disable_search(text) is
  'Forget the search p_name with its texts and embeddings. Raises SY602.';
