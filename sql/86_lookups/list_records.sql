-- Records of one collection, newest first, a page at a time: pass the `cursor` of the last row as
-- p_before for the next page.
--
-- Pages are cut by (indexed_at, repo, rkey), so that none of a million records that were loaded
-- in one transaction is skipped. Without an index on (indexed_at desc) for the collection every
-- page reads all of its records; a NOTICE says so. Planned anew each time: a plan for any
-- collection could use the index of none.
--
-- Called by: apps.
-- Raises: SY002 for a bad cursor or limit.
create or replace function sync.list_records(
  p_nsid   text,
  p_before text default null,
  p_limit  int default 50)
  returns table (did text, handle text, collection text, rkey text, uri text, cid text, rev text,
                 value jsonb, raw bytea, reason text, indexed_at timestamptz, cursor text)
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
as $$
declare
  v_collection int := (select c.collection_id from sync.collections c where c.nsid = p_nsid);
  v_part       text[] := regexp_match(p_before, '^(-?\d{1,18})\.(\d{1,18})\.([^/]+)$');
  v_before     timestamptz;
begin
  if p_before is not null and v_part is null then
    raise exception 'not a cursor of list_records: %', left(p_before, 100) using errcode = 'SY002';
  elsif p_limit is null or p_limit not between 1 and 10000 then
    raise exception 'p_limit must be between 1 and 10000' using errcode = 'SY002';
  end if;
  if v_collection is not null and not sync_priv.has_newest_index(v_collection) then
    raise notice 'no index on (indexed_at desc) for %: every page reads all its records', p_nsid;
  end if;
  v_before := coalesce('epoch'::timestamptz + v_part[1]::bigint * interval '1 microsecond',
                       'infinity');
  return query
    select v.did::text, v.handle::text, p_nsid, s.rkey::text,
           'at://' || v.did || '/' || p_nsid || '/' || s.rkey, sync_priv.cid_text(s.cid),
           s.rev::text, s.value, s.raw, s.reason, s.indexed_at,
           format('%s.%s.%s', (extract(epoch from s.indexed_at) * 1000000)::bigint, s.repo_id,
                  s.rkey)
      from sync.stored_records s
      join sync_priv.visible_repos v on v.repo_id = s.repo_id
     where s.collection_id = v_collection
       and s.indexed_at <= v_before
       and (p_before is null
            or (s.indexed_at, s.repo_id, s.rkey)
               < (v_before, v_part[2]::bigint, v_part[3] collate "C"))
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = 0
                          and coalesce(p.collection_id, 0) = v_collection)
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = s.repo_id
                          and coalesce(p.collection_id, 0) = v_collection)
     order by s.indexed_at desc, s.repo_id desc, s.rkey desc
     limit p_limit;
end
$$;
comment on function sync.list_records(text, text, int) is
  'A page of the visible records of p_nsid, newest first; pass the last cursor as p_before.
Raises SY002.';
