-- One record by its at:// URI, with a did or a verified handle in it; no row when there is none
-- or it may not be shown.
--
-- Called by: apps.
create or replace function sync.get_record(p_uri text)
  returns setof sync.records
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_part text[] := regexp_match(p_uri, '^at://([^/]+)/([^/]+)/([^/]+)$');
begin
  if v_part is null then
    raise exception 'not the URI of a record: %', coalesce(left(p_uri, 100), 'null')
      using errcode = 'SY002', hint = 'It looks like at://did:plc:…/app.bsky.feed.post/3k….';
  end if;
  if v_part[1] like 'did:%' then
    return query
      select r.* from sync.records r
       where r.did = v_part[1] and r.collection = v_part[2] and r.rkey = v_part[3];
  else
    return query
      select r.* from sync.records r
       where r.did = (select s.did from sync.repo_status s
                       where s.handle = lower(v_part[1]) and s.handle <> 'handle.invalid'
                         and s.is_visible
                       order by s.identity_checked_at desc nulls last, s.did limit 1)
         and r.collection = v_part[2] and r.rkey = v_part[3];
  end if;
end
$$;
comment on function sync.get_record(text) is
  'The record at p_uri (at://did-or-handle/collection/rkey), if it is visible. Raises SY002.';
