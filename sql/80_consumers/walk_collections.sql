-- The collections of a repo that have rows, in order, as far as a filter wants them.
--
-- A loop of index probes with one prepared plan: a walk asks this for every repo.
--
-- Called by: sync_priv.walk_steps().
create or replace function sync_priv.walk_collections(p_repo_id bigint, p_collections int[])
  returns setof int
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_collection int := 0;
begin
  loop
    select min(s.collection_id) into v_collection
      from sync.stored_records s
     where s.repo_id = p_repo_id and s.collection_id > v_collection;
    exit when v_collection is null;
    if p_collections is null or v_collection = any (p_collections) then
      return next v_collection;
    end if;
  end loop;
end
$$;
comment on function sync_priv.walk_collections(bigint, int[]) is
  'The collections of a repo that have stored records, in order.';
