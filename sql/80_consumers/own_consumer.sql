-- Find a consumer of the caller: one that a role of his made, or any for members of sync_owner.
-- That of a projection is nobody's: whoever read it would take changes from its table.
--
-- Called by: sync.read_changes(), sync.replay(), sync.drop_consumer().
-- Raises: SY302 when there is none; somebody else's looks the same as no consumer at all.
create or replace function sync_priv.own_consumer(p_name text)
  returns sync.consumers
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_consumer sync.consumers;
begin
  select c.* into v_consumer
    from sync.consumers c
   where c.name = p_name
     and not exists (select from sync.projections p where p.consumer_id = c.consumer_id)
     and exists (select from pg_catalog.pg_roles r
                  where r.rolname in (c.owner_name, 'sync_owner')
                    and pg_has_role(sync_priv.caller(), r.oid, 'member'));
  if not found then
    raise exception 'there is no consumer % of yours', quote_nullable(left(p_name, 100))
      using errcode = 'SY302',
            hint = 'Make it with sync.create_consumer(), or work as a member of the role that did.';
  end if;
  return v_consumer;
end
$$;
comment on function sync_priv.own_consumer(text) is
  'The consumer p_name if the caller may use it; else raises SY302.';
