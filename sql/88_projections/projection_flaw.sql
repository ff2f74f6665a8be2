-- What is wrong with a projection's table or function, in one sentence; null when nothing is.
--
-- Looked at before every batch: an app may replace its function at any time, and one that is not
-- SECURITY DEFINER would run with the rights of the service.
--
-- Called by: sync_priv.add_projection(), sync_priv.claim_projection(), sync_priv.begin_rebuild().
create or replace function sync_priv.projection_flaw(p_projection sync.projections)
  returns text
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_target text := format('%I.%I', p_projection.target_schema, p_projection.target_name);
  v_apply  text := format('%I.%I(regclass, sync.change[])',
                          p_projection.apply_schema, p_projection.apply_name);
  v_owner  text := p_projection.owner_name;
  v_table  pg_catalog.pg_class;
  v_code   pg_catalog.pg_proc;
begin
  select c.* into v_table
    from sync_priv.projection_code(p_projection) f join pg_catalog.pg_class c on c.oid = f.target;
  select p.* into v_code
    from sync_priv.projection_code(p_projection) f join pg_catalog.pg_proc p on p.oid = f.apply;
  return case
    when v_table.oid is null or v_table.relkind not in ('r', 'p')
         or v_table.relpersistence = 't' then
      format('there is no table %s that lasts', v_target)
    when exists (select from pg_catalog.pg_class c
                  where c.relpersistence = 'u'
                    and (c.oid = v_table.oid
                         or c.oid in (select t.relid from pg_partition_tree(v_table.oid) t))) then
      format('a crash would empty table %1$s: alter table %1$s set logged, and its partitions',
             v_target)
    when v_table.relrowsecurity and v_table.relforcerowsecurity then
      format('policies would hide rows from who keeps table %1$s: alter table %1$s '
             'no force row level security', v_target)
    when v_code.oid is null or v_code.prokind <> 'f' then
      format('there is no function %s', v_apply)
    when v_table.relowner <> v_code.proowner or pg_get_userbyid(v_code.proowner) <> v_owner then
      format('table %s and function %s do not both belong to %I', v_target, v_apply, v_owner)
    when not v_code.prosecdef then
      format('the function is not safe to call: alter function %s security definer', v_apply)
    when not coalesce(array_to_string(v_code.proconfig, E'\n') ~ '(^|\n)search_path=', false) then
      format('the function is not safe to call: alter function %s set search_path = %I, pg_temp',
             v_apply, p_projection.target_schema)
    when not exists (select from pg_catalog.pg_index i
                      where i.indrelid = v_table.oid and i.indisprimary) then
      format('table %s has no primary key', v_target)
    when exists (select from pg_catalog.pg_index i
                   join pg_catalog.pg_attribute a
                     on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                  where i.indrelid = v_table.oid and i.indisprimary and a.attidentity <> '') then
      format('the primary key of %s is numbered by itself: a rebuild could not tell its rows',
             v_target)
    when not pg_has_role(v_code.proowner, 'sync_reader', 'member') and v_owner <> 'sync_owner' then
      format('its role may not read: grant sync_reader to %I', v_owner)
    when not has_schema_privilege('sync_ingester', v_code.pronamespace, 'usage') then
      format('the service cannot call it: grant usage on schema %I to sync_ingester',
             p_projection.apply_schema)
    when not has_function_privilege('sync_ingester', v_code.oid, 'execute') then
      format('the service cannot call it: grant execute on function %s to sync_ingester', v_apply)
  end;
end
$$;
comment on function sync_priv.projection_flaw(sync.projections) is
  'What is wrong with a projection''s table or function and what mends it, or null.';
