-- The collections of a repo that have rows, in order, as far as a filter wants them; or the one
-- that is asked for, if the filter wants it.
--
-- A loop of index probes with one prepared plan: a filtered walk asks this for every repo.
--
-- Called by: sync_priv.walk_rows(), sync_priv.rest_steps().
create or replace function sync_priv.walk_collections(
  p_repo_id       bigint,
  p_collection_id int,
  p_collections   int[])
  returns setof int
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_collection int := p_collection_id;
begin
  if p_repo_id is null then
    return;
  end if;
  loop
    if p_collection_id = 0 then
      select min(s.collection_id) into v_collection
        from sync.stored_records s
       where s.repo_id = p_repo_id and s.collection_id > v_collection;
      exit when v_collection is null;
    end if;
    if p_collections is null or v_collection = any (p_collections) then
      return next v_collection;
    end if;
    exit when p_collection_id <> 0;
  end loop;
end
$$;
comment on function sync_priv.walk_collections(bigint, int, int[]) is
  'The collections of a repo (0: all that have records) that a filter wants, in order.';
