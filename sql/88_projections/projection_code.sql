-- The table and the function that a projection's names mean now, and the function's catalog row.
--
-- Called by: sync_priv.claim_projection(), sync_priv.begin_rebuild().
create or replace function sync_priv.projection_code(
  p_projection sync.projections,
  out target regclass, out apply regprocedure, out version text)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select to_regclass(format('%I.%I', p_projection.target_schema, p_projection.target_name)),
         p.oid, p.xmin::text || p.ctid::text
    from pg_catalog.pg_proc p
   where p.oid = to_regprocedure(format('%I.%I(regclass, sync.change[])',
                                        p_projection.apply_schema, p_projection.apply_name))
$$;
comment on function sync_priv.projection_code(sync.projections) is
  'Table and function of a projection, and the function''s row in the catalog.';
