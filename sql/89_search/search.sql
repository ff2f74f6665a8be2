-- Find the records of a search whose texts are nearest to an embedding, the nearest first; hidden
-- and deleted ones never, whatever the table still has.
--
-- Takes an array, so that the function is there without pgvector too. The embedding has to come
-- from the search's own embedder.
--
-- Runs with its caller's rights: all it does is call the function of that search, and have
-- pgvector go on looking when hits are hidden. That is no setting of the function's own, as only a
-- superuser may restore one of an extension that is not loaded.
--
-- Called by: apps.
-- Raises: SY602 when there is no such search; SY601 when pgvector was dropped; SY002 for a bad
-- limit, or an embedding of another length.
create or replace function sync.search(p_name text, p_embedding real[], p_limit int default 10)
  returns table (uri text, did text, rkey text, text text, distance float8)
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_find text := format('sync_search.%I', coalesce(p_name, '') || '__find');
  v_scan text := coalesce(current_setting('hnsw.iterative_scan', true), 'off');
begin
  if p_limit is null or p_limit not between 1 and 1000 then
    raise exception 'p_limit must be between 1 and 1000' using errcode = 'SY002';
  elsif p_embedding is null then
    raise exception 'p_embedding is missing' using errcode = 'SY002';
  elsif to_regprocedure(v_find || '(real[], int)') is null then
    raise exception 'there is no search %', left(quote_nullable(p_name), 100)
      using errcode = 'SY602', hint = 'sync.list_searches() shows which there are.';
  end if;
  perform set_config('hnsw.iterative_scan', 'strict_order', true);
  return query execute format('select * from %s($1, $2)', v_find) using p_embedding, p_limit;
  perform set_config('hnsw.iterative_scan', v_scan, true);
exception when undefined_object or undefined_column then
  raise exception 'the search % had its embeddings dropped with pgvector (%)', p_name, sqlerrm
    using errcode = 'SY601', hint = 'Have an operator disable the search, and make it anew.';
when data_exception or program_limit_exceeded then
  raise exception 'not an embedding of the search %: %', p_name, sqlerrm
    using errcode = 'SY002', hint = 'Take the model that sync.list_searches() names.';
end
$$;
comment on function sync.search(text, real[], int) is
  'The visible records of search p_name nearest to p_embedding, with the cosine distance (0 to 2).
Raises SY602, SY601, SY002.';
