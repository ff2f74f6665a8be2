-- Give a projection its next changes, in the caller's transaction: its commit is the
-- acknowledgement, as with sync.read_changes(). Returns how many changes were applied; 0 also when
-- the projection does not run, or somebody else is at it.
--
-- When a batch fails by its contents it is halved down to the one change that does: what comes
-- before is kept, and the projection stops with the error and that key. Any other error ends the
-- call; the next one tries again.
--
-- Runs with the caller's rights: the app's function has its own, and nothing of ours is around it.
--
-- Called by: the service, after every change; by hand; pg_cron.
-- Locks: the projection's row, skip locked; the row of its shard.
-- Raises: SY501 for no projection of the caller's, SY002 for a bad argument.
create or replace function sync.run_projection(p_name text, p_max int default 1000)
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_claim record;
  v_step  record;
  v_size  int := p_max;
  v_done  bigint := 0;
begin
  if p_max is null or p_max not between 1 and 100000 then
    raise exception 'p_max must be between 1 and 100000' using errcode = 'SY002';
  end if;
  select c.* into v_claim from sync_priv.claim_projection(p_name) c;
  if v_claim.token is null then
    return 0;
  end if;
  while v_done < p_max loop
    v_size := least(v_size, p_max - v_done);
    select s.* into v_step
      from sync_priv.apply_step(v_claim.token, v_claim.target, v_claim.apply, v_claim.version,
                                v_size) s;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    v_done := v_done + v_step.taken;
    if v_step.error is null then
      exit when v_step.taken < v_size;
    elsif v_size = 1 then
      perform sync_priv.fail_projection(v_claim.token, v_step.error, v_step.error_key);
      exit;
    else
      v_size := v_size / 2;
    end if;
  end loop;
  perform sync_priv.leave_run(v_claim.token);
  return v_done;
end
$$;
comment on function sync.run_projection(text, int) is
  'Apply the next changes of projection p_name, p_max at most, and return how many there were.
Raises SY501, SY002.';
