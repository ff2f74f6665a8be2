-- How a column of a type is indexed. Text and JSON of any size fit only as hashes.
--
-- Called by: sync_priv.check_indexed(), sync_priv.wanted_indexes.
create or replace function sync_priv.index_method(p_type text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_type in ('boolean', 'bigint', 'timestamp with time zone') then 'btree (%s)'
    when p_type = 'text' then 'hash (%s)'
    when p_type = 'jsonb' then 'gin (%s jsonb_path_ops)'
  end
$$;
comment on function sync_priv.index_method(text) is
  'The access method for a type, as a template for its expression; null when there is none.';
