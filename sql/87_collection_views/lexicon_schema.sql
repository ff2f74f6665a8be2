-- Follow references within a lexicon to what they mean.
--
-- Called by: sync_priv.lexicon_type().
create or replace function sync_priv.lexicon_schema(p_schema jsonb, p_lexicon jsonb)
  returns jsonb
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema jsonb := p_schema;
  v_part   text[];
begin
  for v_step in 1 .. 32 loop
    if v_schema ->> 'type' is distinct from 'ref' then
      return v_schema;
    end if;
    v_part := regexp_match(v_schema ->> 'ref', '^([^#]*)(?:#(.+))?$');
    if v_part[1] in ('', p_lexicon ->> 'id') then
      v_schema := p_lexicon #> array['defs', coalesce(v_part[2], 'main')];
    else
      return null;
    end if;
  end loop;
  return null;
end
$$;
comment on function sync_priv.lexicon_schema(jsonb, jsonb) is
  'What p_schema refers to in the end; null when that is in another lexicon, or nowhere.';
