-- Track collections: NSIDs, 'app.bsky.feed.*', or '*' for all.
--
-- Widening leaves every tracked repo incomplete, so they all leave `synchronized` in this very
-- transaction and are fetched again; a fetch or an import that runs now is refused when it ends.
-- Idempotent: a pattern that is tracked already is left alone.
--
-- Called by: operators and apps.
-- Locks: the filter state, then every tracked repo in repo_id order.
-- Raises: SY002 for a malformed pattern.
create or replace function sync.track_collections(p_patterns text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bad        text;
  v_new        text[];
  v_is_wider   boolean;
  v_generation bigint;
begin
  select p into v_bad from unnest(p_patterns) as u (p)
   where p is null or length(p) > 317 or p ~ '\n'
      or p !~ ('^(\*|[a-z]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+'
               '\.([a-zA-Z][a-zA-Z0-9]*|\*))$')
   limit 1;
  if found then
    raise exception 'not a collection pattern: %', coalesce(left(v_bad, 100), 'null')
      using errcode = 'SY002', hint = 'Use an NSID, a prefix like app.bsky.feed.*, or *.';
  end if;
  v_new := array(select distinct p from unnest(p_patterns) as u (p)
                  where not exists (select from sync.filters f
                                     where f.kind = 'collection' and f.pattern = p));
  if v_new = '{}' then
    return 0;
  end if;
  v_generation := sync_priv.next_filter_generation();
  -- Only now, under its lock, do the filters hold still: another transaction may have changed
  -- them while this one waited.
  v_new := array(select distinct p from unnest(p_patterns) as u (p)
                  where not exists (select from sync.filters f
                                     where f.kind = 'collection' and f.pattern = p));
  -- A pattern below one that is tracked already brings nothing new.
  v_is_wider := exists (select from unnest(v_new) as u (p)
                         where not sync_priv.is_tracked_nsid(p) or p = '*');
  insert into sync.filters (kind, pattern, generation, created_at)
  select 'collection', p, v_generation, sync_priv.clock() from unnest(v_new) as u (p);
  if v_is_wider then
    perform from sync.repos r
      where r.tracked_by = 'did' or (r.tracked_by = 'import' and r.sync_state = 'fetching')
      order by r.repo_id for no key update;
    update sync.repos r
       set sync_state = case r.sync_state when 'pending' then 'pending' when 'failed' then 'failed'
                                          else 'desynchronized' end,
           filter_generation = v_generation,
           next_fetch_at = least(r.next_fetch_at, sync_priv.clock())
     where r.tracked_by = 'did' or (r.tracked_by = 'import' and r.sync_state = 'fetching');
  end if;
  return cardinality(v_new);
end
$$;
comment on function sync.track_collections(text[]) is
  'Track the collections of p_patterns; returns how many patterns are new. Raises SY002.';
