-- Take one expression that makes a text of a record, out of nothing else, and that does nothing
-- else: what is generated from it runs as the owner.
--
-- PostgreSQL itself says so: as that of a generated column it is immutable and reads no table;
-- and it depends on nothing but the record, what PostgreSQL has built in, and functions that
-- migrations made. So nobody can exchange a part of it later.
--
-- Called by: sync.enable_search().
-- Raises: SY002 with what PostgreSQL says.
create or replace function sync_priv.checked_text(p_expression text)
  returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_foreign text;
begin
  if coalesce(btrim(p_expression), '') = '' then
    raise exception 'a search needs an expression that makes a text'
      using errcode = 'SY002', hint = 'The record is `value`, like value ->> ''text''.';
  end if;
  perform sync_priv.checked_expression(p_expression);
  begin
    execute format(
      'create temporary table pg_temp.sync_text (value jsonb, raw bytea, rev text collate "C", '
      'made text generated always as ((%1$s%2$s)::text) stored) on commit drop',
      p_expression, E'\n');
  exception when syntax_error_or_access_rule_violation or data_exception
              or feature_not_supported or program_limit_exceeded then
    raise exception 'not a text that depends on the record alone: % (%)',
        left(p_expression, 200), sqlerrm
      using errcode = 'SY002', hint = 'The record is `value`, like value ->> ''text''.';
  end;
  select string_agg(pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), ', ')
    into v_foreign
    from pg_catalog.pg_attrdef a
    join pg_catalog.pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = a.oid
   where a.adrelid = to_regclass('pg_temp.sync_text')
     and (d.refclassid, d.refobjid) <> ('pg_class'::regclass, a.adrelid)
     and not exists (select from pg_catalog.pg_proc p
                      where d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
                        and p.pronamespace = 'sync_migration'::regnamespace);
  drop table pg_temp.sync_text;
  if v_foreign is not null then
    raise exception 'an expression of a search may not use the %', v_foreign
      using errcode = 'SY002',
            hint = 'Take what PostgreSQL has built in, or the functions of sync_migration.';
  end if;
  return p_expression;
end
$$;
comment on function sync_priv.checked_text(text) is
  'p_expression, if it makes a text of a record out of nothing else. Raises SY002.';
