-- Compare the columns of a view with those it had.
--
-- Called by: sync.create_view().
create or replace function sync_priv.changed_columns(p_before jsonb, p_after jsonb)
  returns table (column_name text, column_type text, change text)
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(a.item, b.item) ->> 'name',
         coalesce(a.item, b.item) ->> 'type',
         case when b.item is null then 'added'
              when a.item is null then 'removed'
              when (a.item ->> 'type', a.item ->> 'expression')
                   = (b.item ->> 'type', b.item ->> 'expression') then 'kept'
              else 'changed' end
    from jsonb_array_elements(p_after) with ordinality as a (item, place)
    full join jsonb_array_elements(p_before) with ordinality as b (item, place)
           on b.item -> 'name' = a.item -> 'name'
   order by a.place, b.place
$$;
comment on function sync_priv.changed_columns(jsonb, jsonb) is
  'Every column with its type and whether it was added, kept, changed or removed.';
