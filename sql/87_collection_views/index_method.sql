-- How a column of a type is indexed, so that no value of any size can make an insert fail: text
-- only as a hash.
--
-- Called by: sync_priv.chosen_indexes(), sync_priv.wanted_indexes.
create or replace function sync_priv.index_method(p_type text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_type in ('boolean', 'bigint', 'timestamp with time zone') then 'btree'
    when p_type = 'text' then 'hash'
  end
$$;
comment on function sync_priv.index_method(text) is
  'The access method for a type; null when its columns can have no index.';
