-- The type of one property: which function reads it. What another lexicon defines is JSON as it is.
--
-- Called by: sync_priv.lexicon_columns().
create or replace function sync_priv.lexicon_type(p_schema jsonb, p_lexicon jsonb)
  returns text
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema jsonb := sync_priv.lexicon_schema(p_schema, p_lexicon);
begin
  return case v_schema ->> 'type'
    when 'string' then case v_schema ->> 'format' when 'datetime' then 'datetime' else 'text' end
    when 'token' then 'text'
    when 'boolean' then 'boolean'
    when 'integer' then 'integer'
    when 'bytes' then 'bytes'
    when 'cid-link' then 'link'
    when 'blob' then 'blob'
    when 'object' then 'object'
    when 'union' then 'object'
    when 'unknown' then 'object'
    when 'array' then
      case sync_priv.lexicon_schema(v_schema -> 'items', p_lexicon) ->> 'type'
        when 'string' then 'texts'
        when 'token' then 'texts'
        when 'boolean' then 'booleans'
        when 'integer' then 'integers'
        else 'array'
      end
    else 'json'
  end;
end
$$;
comment on function sync_priv.lexicon_type(jsonb, jsonb) is
  'The name N of the function sync_migration.as_N() that reads a property of this schema.';
