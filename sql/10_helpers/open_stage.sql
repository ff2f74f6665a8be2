-- Make the staging tables of this connection. Idempotent.
--
-- They are temporary and lose their rows at commit: nothing is ever deleted from them row by
-- row, which an old snapshot elsewhere would turn into a scan of the dead. They belong to the
-- owner of the schema, so that what the ingest functions read cannot be replaced by a view.
--
-- Called by: the service, once a connection.
-- Raises: SY102 when somebody else made a table of that name in this session.
create or replace function sync.open_stage()
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set client_min_messages = 'warning'
as $$
declare
  v_name text;
begin
  foreach v_name in array array['events', 'repos', 'records', 'first_loads', 'diff', 'walk'] loop
    -- The template's name is from the list above; only DDL needs a string.
    execute format(
      'create temporary table if not exists %I (like sync_stage.%I including all)
         on commit delete rows',
      case when v_name in ('events', 'repos', 'records') then 'stage_' || v_name else v_name end,
      v_name);
  end loop;
  perform sync_priv.require_stage();
  grant insert, select on pg_temp.stage_events, pg_temp.stage_repos, pg_temp.stage_records
    to sync_ingester;
end
$$;
comment on function sync.open_stage() is
  'Make the temporary staging tables stage_events, stage_repos and stage_records of a connection.';
