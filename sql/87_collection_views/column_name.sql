-- Name the column of a property: createdAt becomes created_at, a name that a fixed column has
-- gets `value_` in front, one that is taken a number behind.
--
-- Called by: sync_priv.lexicon_columns().
create or replace function sync_priv.column_name(p_property text, p_taken text[])
  returns text
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_base   text := lower(regexp_replace(p_property, '([a-z0-9])([A-Z])', '\1_\2', 'g')
                         collate "C");
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
    exit when v_name <> all (p_taken);
    v_suffix := '_' || v_number;
  end loop;
  return v_name;
end
$$;
comment on function sync_priv.column_name(text, text[]) is
  'The column name of p_property that is not in p_taken.';
