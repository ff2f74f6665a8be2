-- The statements that grant again what is granted on a view, beside what its owner has.
--
-- Called by: sync_priv.define_view().
create or replace function sync_priv.view_grants(p_view text)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
           format('grant %s on %s to %s%s', a.privilege_type, p_view,
                  case a.grantee when 0 then 'public' else a.grantee::regrole::text end,
                  case when a.is_grantable then ' with grant option' else '' end), '; ')
    from pg_catalog.pg_class c
   cross join lateral aclexplode(c.relacl) as a
   where c.oid = to_regclass(p_view) and a.grantee <> c.relowner
$$;
comment on function sync_priv.view_grants(text) is
  'GRANT statements for what others may do with p_view (quoted); null when there are none.';
