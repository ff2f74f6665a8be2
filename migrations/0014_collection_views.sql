-- What a view's columns are made of. Indexes of apps are built on these functions, so they are
-- never replaced by an upgrade: whoever changes one makes a new one. All give null, never an
-- error, for what is not of the type (DM-06: a reader takes records as they are).
create schema sync_migration;

create function sync_migration.as_text(p_value jsonb)
  returns text
  language sql immutable parallel safe
  return case jsonb_typeof(p_value) when 'string' then p_value #>> '{}' end;
comment on function sync_migration.as_text(jsonb) is 'A string, else null.';

create function sync_migration.as_boolean(p_value jsonb)
  returns boolean
  language sql immutable parallel safe
  return case jsonb_typeof(p_value) when 'boolean' then p_value::boolean end;
comment on function sync_migration.as_boolean(jsonb) is 'A boolean, else null.';

create function sync_migration.as_integer(p_value jsonb)
  returns bigint
  language sql immutable parallel safe
  return case
    when jsonb_typeof(p_value) <> 'number' then null
    when p_value::numeric not between -9223372036854775808 and 9223372036854775807 then null
    when p_value::numeric <> trunc(p_value::numeric) then null
    else p_value::numeric::bigint
  end;
comment on function sync_migration.as_integer(jsonb) is 'A whole number of 64 bits, else null.';

-- Every insert into an indexed collection pays for this one, and a regular expression with groups
-- costs six times as much. The search path is pinned: an operator of a reader must not be called
-- with what is computed here.
create function sync_migration.as_datetime(p_value jsonb)
  returns timestamptz
  language plpgsql immutable parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text     text collate "C" := sync_migration.as_text(p_value);
  v_zone     text collate "C" := right(v_text, 6);
  v_fraction text collate "C";
  v_year     int;
  v_month    int;
  v_day      int;
  v_hour     int;
  v_minute   int;
  v_second   int;
  v_offset   int := 0;  -- minutes
  v_local    timestamp;
begin
  if v_text is null or length(v_text) not between 20 and 64
     or v_text not like '____-__-__T__:__:__%'
     or translate(left(v_text, 19), '0123456789', '') <> '--T::' then
    return null;
  end if;
  if v_zone like '%Z' then
    v_fraction := substr(v_text, 20, length(v_text) - 20);
  elsif length(v_text) > 24 and (v_zone like '+__:__' or v_zone like '-__:__')
        and translate(v_zone, '0123456789', '') in ('+:', '-:')
        and substr(v_zone, 2, 2) <= '23' and right(v_zone, 2) <= '59'
        and v_zone <> '-00:00' then  -- RFC 3339 says so where the zone is not known
    v_fraction := substr(v_text, 20, length(v_text) - 25);
    v_offset := substr(v_zone, 2, 2)::int * 60 + right(v_zone, 2)::int;
    if v_zone like '-%' then
      v_offset := -v_offset;
    end if;
  else
    return null;
  end if;
  if v_fraction <> '' and (v_fraction not like '._%'
                           or translate(v_fraction, '0123456789', '') <> '.') then
    return null;
  end if;
  v_year := left(v_text, 4);
  v_month := substr(v_text, 6, 2);
  v_day := substr(v_text, 9, 2);
  v_hour := substr(v_text, 12, 2);
  v_minute := substr(v_text, 15, 2);
  v_second := substr(v_text, 18, 2);
  if v_year < 1 or v_month not between 1 and 12 or v_day < 1
     or v_hour > 23 or v_minute > 59 or v_second > 59
     or v_day > (case when v_month in (4, 6, 9, 11) then 30
                      when v_month <> 2 then 31
                      when v_year % 4 = 0 and (v_year % 100 <> 0 or v_year % 400 = 0) then 29
                      else 28 end) then
    return null;
  end if;
  -- What is finer than a microsecond is cut off.
  v_local := make_timestamp(v_year, v_month, v_day, v_hour, v_minute,
               v_second + rpad(substr(v_fraction, 2, 6), 6, '0')::int / 1000000::float8)
             - v_offset * interval '1 minute';
  if v_local < timestamp '0001-01-01' or v_local >= timestamp '10000-01-01' then
    return null;
  end if;
  return v_local at time zone 'UTC';
end
$$;
comment on function sync_migration.as_datetime(jsonb) is
  'A datetime of the protocol to the microsecond (SX-15, SX-16), else null; also null where the
year, as written or in UTC, is not one of 1 to 9999, which most programs cannot read.';

create function sync_migration.as_bytes(p_value jsonb)
  returns bytea
  language sql immutable parallel safe
  return case
    when jsonb_typeof(p_value) <> 'object' then null
    when jsonb_typeof(p_value -> '$bytes') is distinct from 'string' then null
    when p_value - '$bytes' <> '{}' then null
    when p_value ->> '$bytes' !~ '^[A-Za-z0-9+/]*={0,2}$' then null
    when length(rtrim(p_value ->> '$bytes', '=')) % 4 <> 1
    then decode(rtrim(p_value ->> '$bytes', '=')
                || repeat('=', -length(rtrim(p_value ->> '$bytes', '=')) & 3), 'base64')
  end;
comment on function sync_migration.as_bytes(jsonb) is
  'Bytes, {"$bytes": base64} (DM-02), else null.';

create function sync_migration.as_link(p_value jsonb)
  returns text
  language sql immutable parallel safe
  return case
    when jsonb_typeof(p_value) <> 'object' then null
    when p_value - '$link' = '{}' then sync_migration.as_text(p_value -> '$link')
  end;
comment on function sync_migration.as_link(jsonb) is
  'A CID, of {"$link": text} (DM-01), else null.';

create function sync_migration.as_blob(p_value jsonb)
  returns jsonb
  language sql immutable parallel safe
  return case
    when jsonb_typeof(p_value) <> 'object' then null
    when p_value ->> '$type' = 'blob'
         and sync_migration.as_link(p_value -> 'ref') is not null
         and sync_migration.as_text(p_value -> 'mimeType') is not null
         and sync_migration.as_integer(p_value -> 'size') >= 0
    then p_value
    when not p_value ? '$type'
         and sync_migration.as_text(p_value -> 'cid') is not null
         and sync_migration.as_text(p_value -> 'mimeType') is not null
    then p_value
  end;
comment on function sync_migration.as_blob(jsonb) is
  'A blob of today or of old (DM-04, DM-05) as it is, else null.';

create function sync_migration.as_object(p_value jsonb)
  returns jsonb
  language sql immutable parallel safe
  return case jsonb_typeof(p_value) when 'object' then p_value end;
comment on function sync_migration.as_object(jsonb) is 'An object as it is, else null.';

create function sync_migration.as_array(p_value jsonb)
  returns jsonb
  language sql immutable parallel safe
  return case jsonb_typeof(p_value) when 'array' then p_value end;
comment on function sync_migration.as_array(jsonb) is 'An array as it is, else null.';

create function sync_migration.as_json(p_value jsonb)
  returns jsonb
  language sql immutable parallel safe
  return nullif(p_value, 'null'::jsonb);
comment on function sync_migration.as_json(jsonb) is 'Anything as it is; null for null.';

create function sync_migration.as_texts(p_value jsonb)
  returns text[]
  language sql immutable parallel safe
  return case when jsonb_typeof(p_value) = 'array' then (
    select case when coalesce(bool_and(jsonb_typeof(e.item) = 'string'), true)
                then coalesce(array_agg(e.item #>> '{}' order by e.place), '{}') end
      from jsonb_array_elements(p_value) with ordinality as e (item, place)) end;
comment on function sync_migration.as_texts(jsonb) is 'An array of nothing but strings, else null.';

create function sync_migration.as_booleans(p_value jsonb)
  returns boolean[]
  language sql immutable parallel safe
  return case when jsonb_typeof(p_value) = 'array' then (
    select case when coalesce(bool_and(sync_migration.as_boolean(e.item) is not null), true)
                then coalesce(array_agg(sync_migration.as_boolean(e.item) order by e.place), '{}')
           end
      from jsonb_array_elements(p_value) with ordinality as e (item, place)) end;
comment on function sync_migration.as_booleans(jsonb) is
  'An array of nothing but booleans, else null.';

create function sync_migration.as_integers(p_value jsonb)
  returns bigint[]
  language sql immutable parallel safe
  return case when jsonb_typeof(p_value) = 'array' then (
    select case when coalesce(bool_and(sync_migration.as_integer(e.item) is not null), true)
                then coalesce(array_agg(sync_migration.as_integer(e.item) order by e.place), '{}')
           end
      from jsonb_array_elements(p_value) with ordinality as e (item, place)) end;
comment on function sync_migration.as_integers(jsonb) is
  'An array of nothing but whole numbers of 64 bits, else null.';

-- What apps asked for.
create schema sync_views;
comment on schema sync_views is 'Where the views of collections are that were given no schema.';

create table sync.lexicons (
  nsid       text collate "C" primary key,
  lexicon    jsonb not null,
  did        text collate "C",
  cid        bytea check (length(cid) = 36),
  stored_at  timestamptz not null
);
comment on table sync.lexicons is 'The lexicons that views are made from.';
comment on column sync.lexicons.did is
  'The repo where it was found and verified; null when it was given.';
comment on column sync.lexicons.cid is 'Of its com.atproto.lexicon.schema record; null when given.';

create table sync.collection_views (
  view_schema    text collate "C" not null,
  view_name      text collate "C" not null,
  collection_id  int not null,
  has_lexicon    boolean not null,
  columns        jsonb not null,
  indexed        text[] collate "C" not null,
  newest_by      text collate "C",
  changed_at     timestamptz not null,
  primary key (view_schema, view_name)
);
comment on table sync.collection_views is 'The views that sync.create_view() made.';
comment on column sync.collection_views.has_lexicon is
  'True when the lexicon of its collection is what it was made from, wholly or in part.';
comment on column sync.collection_views.columns is
  'In their order: {"name", "type", "expression", "property": null for one that was given}.';
comment on column sync.collection_views.indexed is 'The columns that have an index of their own.';
comment on column sync.collection_views.newest_by is
  'The column by which the view gives its rows, newest first; null where it has no order.';
