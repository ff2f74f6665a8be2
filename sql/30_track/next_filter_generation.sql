-- Begin a new filter generation and wake the service, which reloads what it filters by.
--
-- The row lock makes filter changes serial; lanes only read it, so an app that idles in a
-- transaction after a filter change holds up other filter changes, never the stream.
--
-- Called by: sync.track_repos(), sync.untrack_repos(), sync.track_collections(),
-- sync.untrack_collections().
-- Locks: the one row of sync_priv.filter_state.
create or replace function sync_priv.next_filter_generation()
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_generation bigint;
begin
  update sync_priv.filter_state s set generation = s.generation + 1
    returning s.generation into v_generation;
  perform pg_notify('sync_work', '');
  return v_generation;
end
$$;
comment on function sync_priv.next_filter_generation() is 'Begin and return a new filter generation.';
