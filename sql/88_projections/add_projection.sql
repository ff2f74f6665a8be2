-- Enter a projection and its reader of the log, which begins with everything there is.
--
-- Called by: sync.create_projection().
-- Raises: SY502 when the table or the function does not do, SY503 when name or table is taken,
-- SY002 for a bad argument.
create or replace function sync_priv.add_projection(
  p_name text, p_target regclass, p_collections text[], p_apply regprocedure)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections;
  v_consumer   text := 'projection ' || p_name;
  v_flaw       text;
begin
  if coalesce(p_name, '') = '' or length(p_name) > 100 then
    raise exception 'a projection needs a name of at most 100 characters' using errcode = 'SY002';
  elsif p_target is null or p_apply is null then
    raise exception 'a projection needs a table and a function' using errcode = 'SY002';
  end if;
  perform sync_priv.check_patterns(p_collections);
  select n.nspname, c.relname, m.nspname, p.proname, pg_get_userbyid(p.proowner)
    into v_projection.target_schema, v_projection.target_name,
         v_projection.apply_schema, v_projection.apply_name, v_projection.owner_name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   cross join pg_catalog.pg_proc p
    join pg_catalog.pg_namespace m on m.oid = p.pronamespace
   where c.oid = p_target and p.oid = p_apply;
  if p_apply is distinct from (select f.apply from sync_priv.projection_code(v_projection) f) then
    raise exception 'the function % does not take (regclass, sync.change[])', p_apply
      using errcode = 'SY502';
  elsif not pg_has_role(sync_priv.caller(), v_projection.owner_name, 'member') then
    raise exception 'the function % belongs to %', p_apply, v_projection.owner_name
      using errcode = 'SY502', hint = 'Work as its owner or as a member of that role.';
  end if;
  v_flaw := sync_priv.projection_flaw(v_projection);
  if v_flaw is not null then
    raise exception '%', v_flaw using errcode = 'SY502';
  elsif exists (select from sync.projections p
                 where p.name = p_name
                    or (p.target_schema, p.target_name)
                       = (v_projection.target_schema, v_projection.target_name))
        or exists (select from sync.consumers c where c.name = v_consumer) then
    raise exception 'there is a projection % or another one of the table % already',
      quote_literal(p_name), p_target
      using errcode = 'SY503', hint = 'Choose another, or drop it with sync.drop_projection().';
  end if;
  perform sync.create_consumer(v_consumer, p_collections);
  update sync.consumers c set owner_name = v_projection.owner_name where c.name = v_consumer;
  insert into sync.projections
    (name, consumer_id, owner_name, target_schema, target_name, apply_schema, apply_name,
     created_at)
  select p_name, c.consumer_id, v_projection.owner_name, v_projection.target_schema,
         v_projection.target_name, v_projection.apply_schema, v_projection.apply_name,
         sync_priv.clock()
    from sync.consumers c where c.name = v_consumer;
  perform pg_notify('sync_changes', '');
end
$$;
comment on function sync_priv.add_projection(text, regclass, text[], regprocedure) is
  'Enter a projection and its reader of the log. Raises SY502, SY503, SY002.';
