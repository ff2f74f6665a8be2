-- Does a collection filter cover this NSID? A pattern is an NSID, 'app.bsky.feed.*' or '*'.
--
-- Called by: whatever decides if a record belongs here.
create or replace function sync_priv.is_tracked_nsid(p_nsid text)
  returns boolean
  language sql
  stable
as $$
  select exists (
    select from sync.filters f
     where f.kind = 'collection'
       and (f.pattern in ('*', p_nsid collate "C")
            or (right(f.pattern, 2) = '.*' and starts_with(p_nsid, left(f.pattern, -1))))
  )
$$;
comment on function sync_priv.is_tracked_nsid(text) is 'True when a collection filter covers p_nsid.';
