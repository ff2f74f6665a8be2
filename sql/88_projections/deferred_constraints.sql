-- The constraints of apps that wait for the commit, as SET CONSTRAINTS takes them; null for none.
-- A name that is also one of a constraint that cannot wait is left out.
--
-- Called by: sync_priv.apply_step(), with the rights of whoever runs it.
create or replace function sync_priv.deferred_constraints()
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select string_agg(distinct format('%I.%I', n.nspname, k.conname), ', ')
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_namespace n on n.oid = k.connamespace
   where k.condeferred
     and n.nspname not in ('sync', 'sync_priv', 'sync_stage')
     and has_schema_privilege(n.oid, 'usage')
     and not exists (select from pg_catalog.pg_constraint o
                      where (o.conname, o.connamespace) = (k.conname, k.connamespace)
                        and not o.condeferrable)
$$;
comment on function sync_priv.deferred_constraints() is
  'Names of the constraints of apps that wait for the commit.';
