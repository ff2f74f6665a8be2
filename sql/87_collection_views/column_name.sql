-- Name the column of a property: createdAt becomes created_at, a name that a fixed column has
-- gets `value_` in front, one that is taken a number behind.
--
-- Called by: sync_priv.lexicon_columns().
create or replace function sync_priv.column_name(p_property text, p_taken jsonb)
  returns text
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  -- A property may be as long as a record.
  v_base   text := left(lower(regexp_replace(left(p_property, 63), '([a-z0-9])([A-Z])', '\1_\2',
                                             'g') collate "C"), 63);
  v_name   text;
  v_suffix text := '';
begin
  if v_base in ('', 'did', 'rkey', 'uri', 'cid', 'indexed_at') then
    v_base := 'value_' || v_base;
  end if;
  for v_number in 2 .. 100000 loop
    -- An identifier has 63 bytes; a cut within a character leaves that one out.
    v_name := v_base || v_suffix;
    while octet_length(v_name) > 63 loop
      v_base := left(v_base, -1);
      v_name := v_base || v_suffix;
    end loop;
    exit when not p_taken ? v_name;
    v_suffix := '_' || v_number;
  end loop;
  return v_name;
end
$$;
comment on function sync_priv.column_name(text, jsonb) is
  'The column name of p_property that is no key of p_taken.';
