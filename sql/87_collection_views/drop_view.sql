-- Drop a view that sync.create_view() made; the indexes that nobody else asks for go after it.
--
-- Called by: operators.
-- Locks: advisory (7261, 4).
-- Raises: SY401 when there is no such view, SY402 when something depends on it.
create or replace function sync.drop_view(p_view text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place  record := sync_priv.view_place(p_view);
  v_detail text;
begin
  perform pg_advisory_xact_lock(7261, 4);
  delete from sync.collection_views w
   where (w.view_schema, w.view_name) = (v_place.view_schema, v_place.view_name);
  if not found then
    raise exception 'there is no view % of a collection', p_view
      using errcode = 'SY401', hint = 'sync.list_views() shows which there are.';
  end if;
  -- Somebody may have put a thing of his in its place.
  if sync_priv.is_our_view(v_place.view_schema, v_place.view_name) then
    begin
      execute format('drop view %I.%I', v_place.view_schema, v_place.view_name);
    exception when dependent_objects_still_exist then
      get stacked diagnostics v_detail = pg_exception_detail;
      raise exception 'something depends on the view %', p_view
        using errcode = 'SY402', detail = v_detail, hint = 'Drop what depends on it first.';
    end;
  end if;
  perform pg_notify('sync_work', '');
end
$$;
comment on function sync.drop_view(text) is 'Drop the view p_view. Raises SY401, SY402.';
