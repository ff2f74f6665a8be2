-- Does a list of collection patterns cover an NSID? No list covers everything.
--
-- Called by: sync_priv.covered_collections(), sync.replay().
create or replace function sync_priv.covers_nsid(p_patterns text[], p_nsid text)
  returns boolean
  language sql
  immutable
  parallel safe
as $$
  select p_patterns is null or exists (
    select from unnest(p_patterns) as u (pattern)
     where u.pattern in ('*', p_nsid)
        or (right(u.pattern, 2) = '.*' and starts_with(p_nsid, left(u.pattern, -1))))
$$;
comment on function sync_priv.covers_nsid(text[], text) is
  'True when one of the patterns (an NSID, app.bsky.feed.*, or *) covers p_nsid.';
