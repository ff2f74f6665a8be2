-- Find a projection of the caller: of a role of his, or any for members of the given roles.
--
-- Called by: whatever works on a projection.
-- Raises: SY501 when there is none; somebody else's looks the same as no projection at all.
create or replace function sync_priv.own_projection(p_name text, p_roles text[])
  returns sync.projections
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_projection sync.projections;
begin
  select p.* into v_projection
    from sync.projections p
   where p.name = p_name
     and exists (select from pg_catalog.pg_roles r
                  where (r.rolname = p.owner_name or r.rolname = any (p_roles))
                    and pg_has_role(sync_priv.caller(), r.oid, 'member'));
  if not found then
    raise exception 'there is no projection % of yours', quote_nullable(left(p_name, 100))
      using errcode = 'SY501',
            hint = 'Make it with sync.create_projection(), or work as a member of its role.';
  end if;
  return v_projection;
end
$$;
comment on function sync_priv.own_projection(text, text[]) is
  'The projection p_name if the caller may work on it; else raises SY501.';
