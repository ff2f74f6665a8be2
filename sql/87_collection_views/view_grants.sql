-- The statements that grant again what is granted on a view, or on columns that it keeps, beside
-- what its owner has.
--
-- Called by: sync_priv.define_view().
create or replace function sync_priv.view_grants(p_view text, p_columns jsonb)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
           format('grant %s%s on %s to %s%s', a.privilege_type, g.columns, p_view,
                  case a.grantee when 0 then 'public' else a.grantee::regrole::text end,
                  case when a.is_grantable then ' with grant option' else '' end), '; ')
    from pg_catalog.pg_class c
   cross join lateral (
     select '' as columns, c.relacl as acl
      union all
     select format(' (%I)', t.attname), t.attacl
       from pg_catalog.pg_attribute t
      where t.attrelid = c.oid
        and (t.attname = any ('{did,rkey,uri,cid,indexed_at}')
             or exists (select from jsonb_array_elements(p_columns) as u (item)
                         where u.item ->> 'name' = t.attname))) g
   cross join lateral aclexplode(g.acl) as a
   where c.oid = to_regclass(p_view) and a.grantee <> c.relowner
$$;
comment on function sync_priv.view_grants(text, jsonb) is
  'GRANT statements for what others may do with p_view (quoted) and with those of its columns that
are in p_columns; null when there are none.';
