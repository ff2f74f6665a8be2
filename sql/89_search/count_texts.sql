-- How many texts of a search have an embedding, wait for one, or were refused, and one that was.
-- Reads the whole table, once.
--
-- Called by: operators.
-- Raises: SY602.
create or replace function sync.count_texts(
    p_name text, out embedded bigint, out waiting bigint, out refused bigint,
    out refused_uri text, out refused_for text)
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_nsid text := (select c.nsid from sync.searches s join sync.collections c using (collection_id)
                   where s.name = p_name);
  v_told text[];
begin
  if v_nsid is null then
    raise exception 'there is no search %', left(quote_nullable(p_name), 100)
      using errcode = 'SY602', hint = 'sync.list_searches() shows which there are.';
  end if;
  execute format($q$
    select count(*) filter (where t.embedding is not null),
           count(*) filter (where t.embedding is null and t.error is null),
           count(*) filter (where t.error is not null),
           min(array['at://' || t.did || '/' || $1 || '/' || t.rkey, t.error])
             filter (where t.error is not null)
      from sync_search.%I t
  $q$, p_name) into embedded, waiting, refused, v_told using v_nsid;
  refused_uri := v_told[1];
  refused_for := v_told[2];
end
$$;
comment on function sync.count_texts(text) is
  'How many texts of search p_name have an embedding, wait, or were refused. Raises SY602.';
