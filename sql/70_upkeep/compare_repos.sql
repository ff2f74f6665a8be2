-- Have every tracked repo compared with what its PDS says, as after a gap: what a stream left out
-- without anybody noticing is found, and fetched. Sources whose last comparison is younger than
-- p_older_than are left alone, and so is one that is being compared: but not for ever, since one
-- PDS that never answers again keeps a comparison open, and says nothing of the others.
--
-- One comparison serves all sources; it is the newest gap that counts.
--
-- Called by: the service now and then, operators (`standpipe source compare`).
create or replace function sync.compare_repos(p_older_than interval default '0')
  returns int
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count int;
begin
  update sync.sources s
     set gap_since = sync_priv.clock()
   where s.is_enabled
     and coalesce(s.gap_since, '-infinity')
         <= sync_priv.clock() - greatest(p_older_than, interval '1 hour')
     and coalesce(s.compared_at, s.created_at) <= sync_priv.clock() - p_older_than;
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform pg_notify('sync_work', '');
  end if;
  return v_count;
end
$$;
comment on function sync.compare_repos(interval) is
  'Compare every tracked repo with its PDS, for sources whose last comparison is older than
p_older_than; returns how many sources that were.';
