-- Is there a view of this name that belongs to us?
--
-- Called by: sync_priv.checked_place(), sync.drop_view(), sync.list_views().
create or replace function sync_priv.is_our_view(p_schema text, p_name text)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_catalog.pg_class c
     where c.oid = to_regclass(format('%I.%I', p_schema, p_name))
       and c.relkind = 'v' and c.relowner = 'sync_owner'::regrole)
$$;
comment on function sync_priv.is_our_view(text, text) is
  'True when the relation is a view of sync_owner.';
