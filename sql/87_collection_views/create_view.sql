-- Make a view of one collection with typed columns, or change one.
--
-- The columns come from the lexicon (given, else the one that is stored for the collection), and
-- from p_columns, {"name": "an SQL expression over value"}, which goes first where both have a
-- name; left null, a view keeps those it was given before. A value that is not of its lexicon's
-- type is null. What a given expression does with one is the caller's affair, so it can have no
-- index: an error there would stop the ingest.
--
-- As sync.records a view runs with its owner's rights behind a security barrier; comparisons of
-- its columns still reach an index. Every view asks for the index that lists its collection newest
-- first, and p_indexed for one on each column named; a running service builds them concurrently.
--
-- A view that exists keeps its columns' names and places, and new ones come last. Where one goes
-- or changes its type the view is made anew, which others that depend on it prevent.
--
-- Called by: operators.
-- Locks: advisory (7261, 4), so that views change one by one.
-- Raises: SY002 for a bad argument, SY401 when the name is taken by something else, SY402 when
-- something depends on the view as it is.
create or replace function sync.create_view(
    p_view text, p_nsid text, p_lexicon jsonb default null, p_columns jsonb default null,
    p_indexed text[] default null)
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
begin
  perform pg_advisory_xact_lock(7261, 4);
  select * into v_old from sync.collection_views w
    where (w.view_schema, w.view_name) = (v_place.view_schema, v_place.view_name);
  if to_regclass(v_view) is not null and v_old.collection_id is distinct from v_collection then
    raise exception 'there is something else of the name %', p_view
      using errcode = 'SY401', hint = 'Choose another name, or drop what is there.';
  end if;
  v_before := coalesce(v_old.columns, '[]');
  v_given := coalesce(p_columns, sync_priv.given_columns(v_before));
  if p_lexicon is not null then
    perform sync_priv.store_lexicon(p_nsid, p_lexicon);
  end if;
  if p_lexicon is not null or v_given = '{}'
     or jsonb_path_exists(v_before, '$[*] ? (@.property != null)') then
    select l.lexicon into v_lexicon from sync.lexicons l where l.nsid = p_nsid;
  end if;
  if v_lexicon is null and v_given = '{}' then
    raise exception 'no lexicon of % is known', p_nsid
      using errcode = 'SY002',
            hint = 'Give one, or columns; `standpipe view add` finds it on the network.';
  end if;
  v_columns := sync_priv.view_columns(p_nsid, v_lexicon, v_given, v_before);
  perform sync_priv.define_view(v_view, v_collection, v_columns);
  v_columns := sync_priv.typed_columns(v_view, v_columns);
  v_indexed := coalesce(p_indexed, v_old.indexed, '{}');
  perform sync_priv.check_indexed(v_indexed, v_columns);
  insert into sync.collection_views
    (view_schema, view_name, collection_id, columns, indexed, changed_at)
  values (v_place.view_schema, v_place.view_name, v_collection, v_columns, v_indexed,
          sync_priv.clock())
      on conflict (view_schema, view_name) do update
     set collection_id = excluded.collection_id, columns = excluded.columns,
         indexed = excluded.indexed, changed_at = excluded.changed_at;
  perform pg_notify('sync_work', '');
  return query select * from sync_priv.changed_columns(v_before, v_columns);
end
$$;
comment on function sync.create_view(text, text, jsonb, jsonb, text[]) is
  'Make or change the view p_view of the collection p_nsid; returns its columns and what changed:
added, kept, changed or removed. Raises SY002, SY401, SY402.';
