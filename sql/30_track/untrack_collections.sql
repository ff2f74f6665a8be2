-- Stop tracking collection patterns: what no other pattern covers is hidden at once and
-- deleted in chunks.
--
-- Called by: operators and apps.
-- Locks: the filter state.
create or replace function sync.untrack_collections(p_patterns text[])
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
begin
  perform sync_priv.next_filter_generation();
  -- What was purged once and is tracked again may have rows again.
  update sync.collections c set is_purged = false
   where c.is_purged and sync_priv.is_tracked_nsid(c.nsid);
  delete from sync.filters f where f.kind = 'collection' and f.pattern = any (p_patterns);
  get diagnostics v_count = row_count;
  if v_count = 0 then
    return 0;
  end if;
  perform sync_priv.purge_untracked();
  return v_count;
end
$$;
comment on function sync.untrack_collections(text[]) is
  'Stop tracking p_patterns and purge what no other pattern covers; returns how many there were.';
