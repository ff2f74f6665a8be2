-- Which columns of a view have an index: those asked for, else those that had one and still can.
--
-- Refused is an index that could make an insert fail, on an expression that may raise, and one that
-- nothing could use: no condition on JSON passes a security barrier.
--
-- Called by: sync.create_view().
-- Raises: SY002 with the first column asked for that can have none.
create or replace function sync_priv.chosen_indexes(
    p_asked text[], p_before text[], p_columns jsonb)
  returns text[]
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_possible text[] := array(
    select c.item ->> 'name'
      from jsonb_array_elements(p_columns) as c (item)
     where c.item ->> 'property' is not null
       and sync_priv.index_method(c.item ->> 'type') is not null);
  v_bad      text;
begin
  if p_asked is null then
    return array(select u.name from unnest(p_before) as u (name)
                  where u.name = any (v_possible));
  end if;
  select coalesce(u.name, 'null') into v_bad
    from unnest(p_asked) as u (name)
   where coalesce(u.name <> all (array_prepend('indexed_at', v_possible)), true)
   limit 1;
  if found then
    raise exception 'there can be no index on the column %', left(v_bad, 100)
      using errcode = 'SY002',
            hint = 'A column can have one that comes from a lexicon and is text, a boolean, an '
                   'integer or a datetime.';
  end if;
  return array(select distinct u.name from unnest(p_asked) as u (name)
                where u.name <> 'indexed_at' order by u.name);
end
$$;
comment on function sync_priv.chosen_indexes(text[], text[], jsonb) is
  'The columns with an index of their own. Raises SY002.';
