-- Hold a repo to its state machine, whoever writes (the chart is in docs/).
--
-- Every transition, and every change of what a running fetch relied on, begins a new
-- generation: a fetch that started in an older one is refused (BF-13).
--
-- Called by: a row trigger on sync.repos.
-- Raises: SY103 on a transition that is not in the chart.
create or replace function sync_priv.guard_repo()
  returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.sync_state is distinct from old.sync_state then
    if not (case old.sync_state
              when 'pending' then new.sync_state in ('fetching')
              when 'fetching' then new.sync_state in
                ('synchronized', 'desynchronized', 'failed', 'pending')
              when 'synchronized' then new.sync_state in ('desynchronized', 'pending')
              when 'desynchronized' then new.sync_state in ('fetching', 'pending')
              else new.sync_state in ('fetching', 'desynchronized', 'pending')
            end) then
      raise exception 'a repo cannot go from % to %', old.sync_state, new.sync_state
        using errcode = 'SY103', detail = format('did %s', old.did);
    end if;
    new.generation := old.generation + 1;
  elsif (new.is_active, new.tracked_by, new.filter_generation)
        is distinct from (old.is_active, old.tracked_by, old.filter_generation) then
    new.generation := old.generation + 1;
  end if;
  if new.sync_state <> 'fetching' then
    new.fetch_token := null;
  end if;
  new.updated_at := sync_priv.clock();
  return new;
end
$$;
comment on function sync_priv.guard_repo() is
  'Refuse illegal state transitions of a repo; begin a new generation with every legal one.';

create or replace trigger guard_repo
  before update on sync.repos
  for each row execute function sync_priv.guard_repo();
