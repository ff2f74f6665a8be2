-- Close a gap once every repo was compared, unless a newer one has opened meanwhile.
--
-- Called by: the service.
create or replace function sync.close_gap(p_source_id int, p_gap_since timestamptz)
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  update sync.sources s set gap_since = null, compared_at = sync_priv.clock()
   where s.source_id = p_source_id and s.gap_since = p_gap_since
$$;
comment on function sync.close_gap(int, timestamptz) is
  'The comparison for the gap of p_gap_since is done.';
