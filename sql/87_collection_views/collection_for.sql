-- The id of a collection, also of one of which nothing is stored yet.
--
-- Called by: sync.create_view().
-- Raises: SY002 when it is no NSID.
create or replace function sync_priv.collection_for(p_nsid text)
  returns int
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_nsid is null or p_nsid like '%*' then
    raise exception 'not the NSID of a collection: %', coalesce(p_nsid, 'null')
      using errcode = 'SY002', hint = 'A view is of one collection, like app.bsky.feed.post.';
  end if;
  perform sync_priv.check_patterns(array[p_nsid]);
  insert into sync.collections (nsid) values (p_nsid) on conflict do nothing;
  return (select c.collection_id from sync.collections c where c.nsid = p_nsid);
end
$$;
comment on function sync_priv.collection_for(text) is
  'The id of the collection p_nsid. Raises SY002.';
