-- Hand a claim back without blame: the service stops, or the fetch has to start over.
--
-- Called by: fetchers.
-- Locks: the repo's row, skip locked (null: try again).
create or replace function sync.release_fetch(
    p_repo_id bigint, p_generation bigint, p_fetch_token bigint)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_priv.require_stage();
  perform from sync.repos r where r.repo_id = p_repo_id for no key update skip locked;
  if not found then
    return null;
  end if;
  update sync.repos r
     set sync_state = 'desynchronized', next_fetch_at = sync_priv.clock()
   where r.repo_id = p_repo_id and r.generation = p_generation
     and r.fetch_token = p_fetch_token and r.sync_state = 'fetching';
  if not found then
    return false;
  end if;
  perform sync_priv.walk_events(array[p_repo_id]);
  return true;
end
$$;
comment on function sync.release_fetch(bigint, bigint, bigint) is
  'Give up a claimed fetch; the repo waits for another at once. False when the claim was over, null
when the repo is locked right now.';
