-- The columns of a record type: one a property, in the order of their names. A property that has
-- a column already keeps its name.
--
-- Called by: sync.create_view().
-- Raises: SY002 when it is not the lexicon of a record, or has more columns than a view can have.
create or replace function sync_priv.lexicon_columns(
    p_nsid text, p_lexicon jsonb, p_before jsonb)
  returns jsonb
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_properties jsonb := p_lexicon #> '{defs,main,record,properties}';
  v_columns    jsonb := '[]'::jsonb;
  v_kept       jsonb;
  v_taken      jsonb;
  v_property   text;
  v_name       text;
  v_reader     text;
begin
  if jsonb_typeof(v_properties) is distinct from 'object'
     or p_lexicon #>> '{defs,main,type}' is distinct from 'record' then
    raise exception 'not the lexicon of a record type: it has no defs.main.record.properties'
      using errcode = 'SY002';
  elsif p_lexicon ->> 'id' is distinct from p_nsid then
    raise exception 'the lexicon is that of %, not of %',
        coalesce(left(p_lexicon ->> 'id', 317), 'nothing'), p_nsid using errcode = 'SY002';
  elsif (select count(*) from jsonb_object_keys(v_properties)) > 1500 then
    raise exception 'the lexicon has more than 1,500 properties' using errcode = 'SY002';
  end if;
  select coalesce(jsonb_object_agg(c ->> 'property', c ->> 'name'), '{}'),
         coalesce(jsonb_object_agg(c ->> 'name', true), '{}')
    into v_kept, v_taken
    from jsonb_array_elements(p_before) as u (c)
   where v_properties ? (c ->> 'property');
  for v_property in select k from jsonb_object_keys(v_properties) as u (k)
                     order by k collate "C" loop
    v_name := v_kept ->> v_property;
    if v_name is null then
      v_name := sync_priv.column_name(v_property, v_taken);
      v_taken := v_taken || jsonb_build_object(v_name, true);
    end if;
    v_reader := sync_priv.lexicon_type(v_properties -> v_property, p_lexicon);
    v_columns := v_columns || jsonb_build_object(
      'name', v_name, 'property', v_property,
      'type', (select p.prorettype::regtype::text from pg_catalog.pg_proc p
                where p.proname = 'as_' || v_reader
                  and p.pronamespace = 'sync_migration'::regnamespace),
      'expression', format('sync_migration.as_%s(value -> %L)', v_reader, v_property));
  end loop;
  return v_columns;
end
$$;
comment on function sync_priv.lexicon_columns(text, jsonb, jsonb) is
  'The columns for the properties of a lexicon, as in sync.collection_views.columns. Raises SY002.';
