-- The table and the function that a projection's names mean now, and the function's catalog row;
-- null for what is not there.
--
-- Looks into the catalog only: by a name it would need rights on the app's schema.
--
-- Called by: sync_priv.claim_projection(), sync_priv.begin_rebuild(), sync_priv.add_projection(),
-- sync_priv.projection_flaw().
create or replace function sync_priv.projection_code(
  p_projection sync.projections,
  out target regclass, out apply regprocedure, out version text)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select (select c.oid from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where (n.nspname, c.relname) = (p_projection.target_schema, p_projection.target_name)),
         p.oid, p.xmin::text || p.ctid::text
    from (select) one
    left join (pg_catalog.pg_proc p
               join pg_catalog.pg_namespace m on m.oid = p.pronamespace)
      on (m.nspname, p.proname) = (p_projection.apply_schema, p_projection.apply_name)
     and p.proargtypes::text
         = concat_ws(' ', 'regclass'::regtype::oid, 'sync.change[]'::regtype::oid)
$$;
comment on function sync_priv.projection_code(sync.projections) is
  'Table and function of a projection, and the function''s row in the catalog.';
