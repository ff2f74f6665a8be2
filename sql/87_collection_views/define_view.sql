-- Create a view of a collection, or replace one. PostgreSQL itself decides what it replaces: more
-- columns at the end; where one goes or changes its type, the view has to be dropped first, and is
-- given its grants again.
--
-- Called by: sync.create_view().
-- Raises: SY002 for a column that a view cannot have, SY402 when something depends on the view as
-- it is.
create or replace function sync_priv.define_view(
    p_view text, p_collection_id int, p_columns jsonb, p_newest_by text)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_grants text := sync_priv.view_grants(p_view, p_columns);
  v_detail text;
  v_text   text := sync_priv.view_text(p_view, p_collection_id, p_columns, p_newest_by);
begin
  begin
    execute 'create or replace ' || v_text;
  exception when invalid_table_definition then
    begin
      execute 'drop view if exists ' || p_view;
      execute 'create ' || v_text;
    exception
      when dependent_objects_still_exist then
        get stacked diagnostics v_detail = pg_exception_detail;
        raise exception 'something depends on the view % as it is', p_view
          using errcode = 'SY402', detail = v_detail,
                hint = 'Drop what depends on it first, or make another view.';
      when invalid_table_definition then
        raise exception 'not a column of a view: %', sqlerrm
          using errcode = 'SY002', hint = 'Cast it to the type that it is to have.';
    end;
  end;
  execute format('alter view %s owner to sync_owner', p_view);
  execute format('grant select on %s to sync_reader', p_view);
  if v_grants is not null then
    execute v_grants;
  end if;
end
$$;
comment on function sync_priv.define_view(text, int, jsonb, text) is
  'Create or change p_view (quoted) of a collection. Raises SY002, SY402.';
