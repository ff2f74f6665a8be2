-- Refuse a place where no view of ours can be, or where something else is.
--
-- Called by: sync.create_view().
-- Raises: SY002 for a schema that is ours, or where somebody may not create who has to; SY401 when
-- the name is taken.
create or replace function sync_priv.checked_place(
    p_schema text, p_name text, p_collection_id int)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema oid := to_regnamespace(quote_ident(p_schema));
  v_role   text;
begin
  if v_schema is null or p_schema like 'pg\_%'
     or p_schema in ('information_schema', 'sync', 'sync_priv', 'sync_stage', 'sync_migration',
                     'sync_search') then
    raise exception 'there is no schema % for views', p_schema
      using errcode = 'SY002', hint = 'Name one of yours, or none: then it is sync_views.';
  end if;
  select u.role into v_role
    from unnest(array[current_user::text, 'sync_owner']) with ordinality as u (role, place)
   where not (has_schema_privilege(u.role, v_schema, 'usage')
              and has_schema_privilege(u.role, v_schema, 'create'))
   order by u.place
   limit 1;
  if found then
    raise exception '% may not make a view in the schema %', v_role, p_schema
      using errcode = 'SY002',
            hint = format('Run: grant usage, create on schema %I to %I', p_schema, v_role);
  end if;
  if exists (select from pg_catalog.pg_class c
              where c.relnamespace = v_schema and c.relname = p_name
                and not (sync_priv.is_our_view(p_schema, p_name)
                         and exists (select from sync.collection_views w
                                     where (w.view_schema, w.view_name, w.collection_id)
                                           = (p_schema, p_name, p_collection_id))))
     or exists (select from pg_catalog.pg_type t
                 where t.typnamespace = v_schema and t.typname = p_name
                   and t.typrelid = 0 and t.typcategory <> 'A') then
    raise exception 'there is something else of the name %.%', p_schema, p_name
      using errcode = 'SY401', hint = 'Choose another name, or drop what is there.';
  end if;
end
$$;
comment on function sync_priv.checked_place(text, text, int) is
  'Raise SY002 or SY401 where no view of the collection can be made.';
