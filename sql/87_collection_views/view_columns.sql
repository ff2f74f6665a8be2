-- What a view consists of: the given columns, the properties of the lexicon, what it had first.
--
-- Called by: sync.create_view().
-- Raises: SY002 for a column that cannot be.
create or replace function sync_priv.view_columns(
    p_nsid text, p_lexicon jsonb, p_given jsonb, p_before jsonb)
  returns jsonb
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns jsonb := '[]'::jsonb;
  v_bad     text;
begin
  if jsonb_typeof(p_given) <> 'object' then
    raise exception 'columns are given as {"name": "expression"}' using errcode = 'SY002';
  end if;
  select g.name into v_bad from jsonb_each(p_given) as g (name, expression)
   where octet_length(g.name) not between 1 and 63
      or g.name in ('did', 'rkey', 'uri', 'cid', 'indexed_at')
      or jsonb_typeof(g.expression) <> 'string'
   limit 1;
  if found then
    raise exception 'not a column that can be given: %', left(v_bad, 100)
      using errcode = 'SY002',
            hint = 'Its name has 63 bytes at most and is not did, rkey, uri, cid or indexed_at; '
                   'its expression is SQL text, like value ->> ''text''.';
  end if;
  select coalesce(jsonb_agg(jsonb_build_object(
           'name', g.name, 'property', null,
           'expression', sync_priv.checked_expression(g.expression))
                           order by g.name collate "C"), '[]')
    into v_columns
    from jsonb_each_text(p_given) as g (name, expression);
  if p_lexicon is not null then
    select v_columns || coalesce(jsonb_agg(l.item), '[]')
      into v_columns
      from jsonb_array_elements(
             sync_priv.lexicon_columns(p_nsid, p_lexicon, p_before)) as l (item)
     where not p_given ? (l.item ->> 'name');
  end if;
  if jsonb_array_length(v_columns) > 1500 then
    raise exception 'a view can have 1,500 columns beside its own, not %',
        jsonb_array_length(v_columns) using errcode = 'SY002';
  end if;
  return (select coalesce(jsonb_agg(c.item order by b.place, c.place), '[]')
            from jsonb_array_elements(v_columns) with ordinality as c (item, place)
            left join jsonb_array_elements(p_before) with ordinality as b (item, place)
                   on b.item -> 'name' = c.item -> 'name');
end
$$;
comment on function sync_priv.view_columns(text, jsonb, jsonb, jsonb) is
  'The columns of a view, as in sync.collection_views.columns. Raises SY002.';
