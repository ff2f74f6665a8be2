-- Refuse an index that could make an insert fail: on an expression that may raise, or on values of
-- any size. Text is hashed, JSON too; the rest is small.
--
-- Called by: sync.create_view().
-- Raises: SY002 with the first such column.
create or replace function sync_priv.check_indexed(p_indexed text[], p_columns jsonb)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bad text;
begin
  select u.name into v_bad
    from unnest(p_indexed) as u (name)
    left join jsonb_array_elements(p_columns) as c (item) on c.item ->> 'name' = u.name
   where u.name is distinct from 'indexed_at'
     and (c.item ->> 'property' is null
          or sync_priv.index_method(c.item ->> 'type') is null)
   limit 1;
  if found then
    raise exception 'there can be no index on the column %', coalesce(left(v_bad, 100), 'null')
      using errcode = 'SY002',
            hint = 'A column can have one that comes from a lexicon and is text, a boolean, an '
                   'integer, a datetime or JSON.';
  end if;
end
$$;
comment on function sync_priv.check_indexed(text[], jsonb) is
  'Raise SY002 for a column that can have no index.';
