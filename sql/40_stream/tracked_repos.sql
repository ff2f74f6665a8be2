-- What a lane must learn to get from one filter generation to another.
--
-- Called by: lanes.
create or replace function sync.tracked_repos(p_after bigint, p_upto bigint)
  returns table (did text, is_tracked boolean, signing_key text, pds_url text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.did, coalesce(r.tracked_by = 'did', false), r.signing_key, r.pds_url
    from sync.repos r
   where r.filter_generation > p_after and r.filter_generation <= p_upto
$$;
comment on function sync.tracked_repos(bigint, bigint) is
  'Repos whose tracking changed in the filter generations (p_after, p_upto].';
