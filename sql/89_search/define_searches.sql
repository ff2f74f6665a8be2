-- Make the functions of all searches anew, as this version has them.
--
-- Called by: every upgrade.
create or replace function sync_priv.define_searches()
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
begin
  select count(sync_priv.define_search(s))
    into v_count
    from sync.searches s
    join sync_priv.search_indexes i using (name);
  return v_count;
end
$$;
comment on function sync_priv.define_searches() is 'Make the functions of all searches anew.';
