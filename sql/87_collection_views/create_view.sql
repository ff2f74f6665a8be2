-- Make a view of one collection with typed columns, or change one.
--
-- The columns come from the lexicon (given, else the one that is stored for the collection), and
-- from p_columns, {"name": "an SQL expression over value"}, which goes first where both have a
-- name; left null, a view keeps those it was given before. A value that is not of its lexicon's
-- type is null. What a given expression does with one is the caller's affair, so it can have no
-- index: an error there would stop the ingest.
--
-- As sync.records a view runs with its owner's rights behind a security barrier; comparisons of
-- its columns still reach an index, the order of a query does not. A view with p_newest_by gives
-- its rows in that column's order, the newest first, and a query with the same order and a limit
-- reads only those; but whatever reads all of it has to sort it.
--
-- Every view asks for the index that lists its collection newest first, and p_indexed and
-- p_newest_by for one on each column named; a running service builds them concurrently.
--
-- A view that exists keeps its columns' names and places, and new ones come last. Where one goes
-- or changes its type the view is made anew, with its grants; others that depend on it prevent
-- that.
--
-- Called by: operators.
-- Locks: advisory (7261, 4), so that views change one by one; the view, against readers.
-- Raises: SY002 for a bad argument, SY401 when the name is taken by something else, SY402 when
-- something depends on the view as it is.
create or replace function sync.create_view(
    p_view text, p_nsid text, p_lexicon jsonb default null, p_columns jsonb default null,
    p_indexed text[] default null, p_newest_by text default null)
  returns table (column_name text, column_type text, change text)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place      record := sync_priv.view_place(p_view);
  v_view       text := format('%I.%I', v_place.view_schema, v_place.view_name);
  v_collection int := sync_priv.collection_for(p_nsid);
  v_old        sync.collection_views%rowtype;
  v_before     jsonb;
  v_given      jsonb;
  v_lexicon    jsonb;
  v_columns    jsonb;
  v_indexed    text[];
  v_newest_by  text;
begin
  perform pg_advisory_xact_lock(7261, 4);
  perform sync_priv.checked_place(v_place.view_schema, v_place.view_name, v_collection);
  select * into v_old from sync.collection_views w
   where (w.view_schema, w.view_name, w.collection_id)
         = (v_place.view_schema, v_place.view_name, v_collection);
  v_before := coalesce(v_old.columns, '[]');
  v_given := coalesce(p_columns, sync_priv.given_columns(v_before));
  v_lexicon := sync_priv.lexicon_for(p_nsid, p_lexicon, v_given, v_old.has_lexicon);
  v_columns := sync_priv.view_columns(p_nsid, v_lexicon, v_given, v_before);
  v_indexed := sync_priv.chosen_indexes(p_indexed, v_old.indexed, v_columns);
  v_newest_by := sync_priv.chosen_order(p_newest_by, v_old.newest_by, v_columns);
  if v_newest_by <> all (array_prepend('indexed_at', v_indexed)) then
    v_indexed := v_indexed || v_newest_by;
  end if;
  perform sync_priv.define_view(v_view, v_collection, v_columns, v_newest_by);
  v_columns := sync_priv.typed_columns(v_view, v_columns);
  insert into sync.collection_views
    (view_schema, view_name, collection_id, has_lexicon, columns, indexed, newest_by, changed_at)
  values (v_place.view_schema, v_place.view_name, v_collection, v_lexicon is not null, v_columns,
          v_indexed, v_newest_by, sync_priv.clock())
      on conflict (view_schema, view_name) do update
     set collection_id = excluded.collection_id, has_lexicon = excluded.has_lexicon,
         columns = excluded.columns,
         indexed = excluded.indexed, newest_by = excluded.newest_by,
         changed_at = excluded.changed_at;
  perform pg_notify('sync_work', '');
  return query select * from sync_priv.changed_columns(v_before, v_columns);
end
$$;
comment on function sync.create_view(text, text, jsonb, jsonb, text[], text) is
  'Make or change the view p_view of the collection p_nsid; returns its columns and what changed:
added, kept, changed or removed. Raises SY002, SY401, SY402.';
