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
  delete from sync.filters f where f.kind = 'collection' and f.pattern = any (p_patterns);
  get diagnostics v_count = row_count;
  if v_count = 0 then
    return 0;
  end if;
  with purged as (
    insert into sync_priv.purges (collection_id, started_at)
    select c.collection_id, sync_priv.clock()
      from sync.collections c
     where not sync_priv.is_tracked_nsid(c.nsid)
        on conflict do nothing
    returning collection_id
  )
  insert into sync_priv.pending_changes (xid, kind, collection_id)
  select pg_current_xact_id(), 'purge', p.collection_id from purged p order by p.collection_id;
  return v_count;
end
$$;
comment on function sync.untrack_collections(text[]) is
  'Stop tracking p_patterns and purge what no other pattern covers; returns how many there were.';
