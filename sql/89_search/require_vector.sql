-- See that pgvector is there and may be used, making the extension where the caller can; returns
-- its schema.
--
-- Called by: sync.enable_search().
-- Raises: SY601 with what an administrator has to do.
create or replace function sync_priv.require_vector()
  returns name
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema name;
  v_told   text := (select 'this database has ' || e.extversion
                      from pg_catalog.pg_extension e where e.extname = 'vector');
begin
  if v_told is null then
    begin
      create extension vector with schema public;
    exception when insufficient_privilege or feature_not_supported or undefined_file
                or invalid_schema_name then
      v_told := sqlerrm;
    end;
  end if;
  v_schema := sync_priv.vector_schema();
  if v_schema is null then
    raise exception 'semantic search needs pgvector 0.8 or newer (%)', v_told
      using errcode = 'SY601',
            hint = format('Have a superuser run "create extension vector" in this database; where '
                          'PostgreSQL has no such extension, install it first (on Debian and '
                          'Ubuntu the package postgresql-%s-pgvector).',
                          current_setting('server_version_num')::int / 10000);
  elsif not has_schema_privilege('sync_owner', v_schema, 'usage')
        or not has_schema_privilege('sync_ingester', v_schema, 'usage') then
    raise exception 'pgvector is in the schema %, which our roles may not use', v_schema
      using errcode = 'SY601',
            hint = format('grant usage on schema %I to sync_owner, sync_ingester', v_schema);
  end if;
  return v_schema;
end
$$;
comment on function sync_priv.require_vector() is
  'The schema of pgvector, which is made if it can be. Raises SY601.';
