-- Work out a projection's table anew and write only the difference, in one transaction: nobody
-- sees it half empty, and its triggers fire for what was wrong.
--
-- The reader of the log walks into a shadow table beside the target. By the frontier rule that
-- holds everything as of one position once the walk is over, whatever was committed meanwhile;
-- target and position become that together.
--
-- Runs with the caller's rights, as it makes a table and writes to one of the app's.
--
-- Called by: apps, as the projection's role or a member of it; sync.create_projection().
-- Locks: the projection's row until the end of the transaction.
-- Raises: SY501, SY502; SY504 with the key when a change cannot be applied.
create or replace function sync.rebuild_projection(
  p_name text, out deleted bigint, out updated bigint, out inserted bigint)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_claim  record;
  v_step   record;
  v_diff   record;
  v_schema name;
  v_name   name;
  v_shadow regclass;
  v_writes bigint;
  v_most   constant int := 10000;
  v_size   int := v_most;
  v_idle   int := 0;
begin
  select b.* into v_claim from sync_priv.begin_rebuild(p_name) b;
  select n.nspname, 'rebuild_' || c.oid into v_schema, v_name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.oid = v_claim.target;
  execute format('create unlogged table %I.%I (like %I.%I including all)', v_schema, v_name,
                 v_schema, (select c.relname from pg_catalog.pg_class c
                             where c.oid = v_claim.target));
  v_shadow := format('%I.%I', v_schema, v_name)::regclass;
  if v_claim.owner_name <> current_user then
    execute format('alter table %s owner to %I', v_shadow, v_claim.owner_name);
  end if;
  v_writes := sync_priv.own_writes(v_claim.target);
  loop
    select s.* into v_step
      from sync_priv.apply_step(v_claim.token, v_shadow, v_claim.apply,
                                v_claim.version, v_size) s;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if v_step.error is not null and v_size = 1 then
      raise exception '% at %', v_step.error, v_step.error_key
        using errcode = 'SY504', hint = 'Mend the function, then rebuild again.';
    end if;
    v_size := case when v_step.error is null then least(v_size * 2, v_most) else v_size / 2 end;
    exit when v_step.error is null and v_step.is_whole;
    v_idle := case when v_step.error is null and v_step.taken = 0 then v_idle + 1 else 0 end;
    if v_idle > 100 then
      raise exception 'the walk comes to no end: the function may change what is logged'
        using errcode = 'SY502';
    end if;
  end loop;
  if sync_priv.own_writes(v_claim.target) <> v_writes then
    raise exception 'the function writes to % instead of the table it is given', v_claim.target
      using errcode = 'SY502', hint = 'Have it write to its first argument, by EXECUTE.';
  end if;
  execute format('analyze %s', v_shadow);
  select d.* into v_diff
    from sync_priv.difference_steps(v_claim.target, v_shadow) d;
  execute v_diff.deletion;
  get diagnostics deleted = row_count;
  updated := 0;
  if v_diff.updating is not null then
    execute v_diff.updating;
    get diagnostics updated = row_count;
  end if;
  execute v_diff.insertion;
  get diagnostics inserted = row_count;
  execute format('drop table %s', v_shadow);
  perform sync_priv.leave_run(v_claim.token);
end
$$;
comment on function sync.rebuild_projection(text) is
  'Work out the table of projection p_name anew and write the difference; returns how many rows
were deleted, updated and inserted. Raises SY501, SY502, SY504.';
