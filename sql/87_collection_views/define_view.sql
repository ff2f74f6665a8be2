-- Create a view of a collection, or replace one. PostgreSQL itself decides what it replaces: more
-- columns at the end; where one goes or changes its type, the view has to be dropped first.
--
-- Called by: sync.create_view().
-- Raises: SY402 when something depends on the view as it is.
create or replace function sync_priv.define_view(
    p_view text, p_collection_id int, p_columns jsonb)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_nsid text := (select c.nsid from sync.collections c where c.collection_id = p_collection_id);
  v_text text;
begin
  v_text := format(
    $view$ view %s with (security_barrier) as
    select v.did, s.rkey,
           ('at://' || v.did || %L || s.rkey) collate "C" as uri,
           sync_priv.cid_text(s.cid) collate "C" as cid,
           s.indexed_at%s
      from sync.stored_records s
      join sync_priv.visible_repos v on v.repo_id = s.repo_id
     where s.collection_id = %s
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = 0 and coalesce(p.collection_id, 0) = %s)
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = s.repo_id
                          and coalesce(p.collection_id, 0) = %s) $view$,
    p_view, '/' || v_nsid || '/',
    (select coalesce(string_agg(format(E',\n           (%s\n           ) as %I',
                                       c.item ->> 'expression', c.item ->> 'name'), ''
                                order by c.place), '')
       from jsonb_array_elements(p_columns) with ordinality as c (item, place)),
    p_collection_id, p_collection_id, p_collection_id);
  begin
    execute 'create or replace' || v_text;
  exception when invalid_table_definition then
    begin
      execute 'drop view ' || p_view;
    exception when dependent_objects_still_exist then
      raise exception 'something depends on the view % as it is', p_view
        using errcode = 'SY402', detail = sqlerrm,
              hint = 'Drop what depends on it first, or make another view.';
    end;
    execute 'create' || v_text;
  end;
  execute format('alter view %s owner to sync_owner', p_view);
  execute format('grant select on %s to sync_reader', p_view);
end
$$;
comment on function sync_priv.define_view(text, int, jsonb) is
  'Create or change p_view (quoted) of a collection. Raises SY402.';
