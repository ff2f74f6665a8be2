-- Refuse a malformed collection pattern: an NSID, 'app.bsky.feed.*', or '*'.
--
-- Called by: sync.create_consumer(), sync.replay().
-- Raises: SY002 with the first one, or for a list that matches nothing.
create or replace function sync_priv.check_patterns(p_patterns text[])
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bad text;
begin
  if cardinality(p_patterns) = 0 then
    raise exception 'an empty list of collections matches nothing: leave it null for all'
      using errcode = 'SY002';
  end if;
  select p into v_bad from unnest(p_patterns) as u (p)
   where p is null or length(p) > 317 or p ~ '\n'
      or p !~ ('^(\*|[a-zA-Z][a-zA-Z0-9-]*\.\*|'
               '[a-zA-Z]([a-zA-Z0-9-]*[a-zA-Z0-9])?'
               '(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)+(\.\*)?)$')
   limit 1;
  if found then
    raise exception 'not a collection pattern: %', coalesce(left(v_bad, 100), 'null')
      using errcode = 'SY002', hint = 'Use an NSID, a prefix like app.bsky.feed.*, or *.';
  end if;
end
$$;
comment on function sync_priv.check_patterns(text[]) is
  'Raise SY002 for a malformed collection pattern.';
