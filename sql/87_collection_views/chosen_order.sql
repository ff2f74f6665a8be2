-- By which column a view gives its rows: the one asked for, else the one it had and still can.
--
-- Called by: sync.create_view().
-- Raises: SY002 when it cannot be that one.
create or replace function sync_priv.chosen_order(p_asked text, p_before text, p_columns jsonb)
  returns text
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_possible text[] := 'indexed_at'::text || array(
    select c.item ->> 'name'
      from jsonb_array_elements(p_columns) as c (item)
     where c.item ->> 'property' is not null
       and c.item ->> 'type' in ('bigint', 'timestamp with time zone'));
begin
  if p_asked <> all (v_possible) then
    raise exception 'a view cannot give its rows by the column %', left(p_asked, 100)
      using errcode = 'SY002',
            hint = 'It can by indexed_at, and by a datetime or an integer of a lexicon.';
  end if;
  return case when p_asked is not null then p_asked
              when p_before = any (v_possible) then p_before end;
end
$$;
comment on function sync_priv.chosen_order(text, text, jsonb) is
  'The column by which a view gives its rows, newest first, or null. Raises SY002.';
