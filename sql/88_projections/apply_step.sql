-- Give one batch to the apply function of a projection, in a subtransaction. An error comes back
-- as `error` (with the app's function and its line) and `error_key` (of its first change), with
-- nothing done. What trying again may mend is raised; the rest cannot be listed, as apps have
-- SQLSTATEs of their own.
--
-- Runs with the caller's rights, for it runs the app's code; and sees afterwards that this was
-- what it was taken for, and left nothing behind that the commit would run with our rights: the
-- function is still the row that was looked at (what one did that was replaced meanwhile is
-- undone), no cursor outlives the transaction, and no deferred trigger waits. Deferred constraints
-- are checked here, where the change that breaks them is known.
--
-- Called by: sync.run_projection(), sync.rebuild_projection(); both pin the search_path again, for
-- the app may have set one that outlives its function.
create or replace function sync_priv.apply_step(
  p_token uuid, p_target regclass, p_apply regprocedure, p_version text, p_max int,
  out taken bigint, out is_whole boolean, out error text, out error_key text)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema    name;
  v_name      name;
  v_changes   sync.change[];
  v_suspects  oid[];
  v_deferred  text;
  v_detail    text;
  v_context   text;
begin
  select n.nspname, p.proname into v_schema, v_name
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where p.oid = p_apply;
  begin
    select t.changes, t.taken, t.is_whole into v_changes, taken, is_whole
      from sync_priv.take_changes(p_token, p_max) t;
    if v_changes is null then
      return;
    end if;
    execute format('select %I.%I($1, $2)', v_schema, v_name) using p_target, v_changes;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if not exists (select from pg_catalog.pg_proc p
                    where p.oid = p_apply and p.xmin::text || p.ctid::text = p_version) then
      raise exception 'the function was replaced while it ran' using errcode = '40001';
    elsif exists (select from pg_catalog.pg_cursors c
                   where c.is_holdable and c.creation_time >= statement_timestamp()) then
      raise exception 'the function left a cursor behind' using errcode = '42501';
    end if;
    select array_agg(t.tgrelid) into v_suspects
      from pg_catalog.pg_trigger t
      join pg_catalog.pg_class c on c.oid = t.tgrelid
      left join pg_catalog.pg_constraint k on k.oid = t.tgconstraint
     where t.tgdeferrable and (not t.tgisinternal or k.contype = 'x')
       and c.relnamespace <> all ('{sync,sync_priv,sync_stage}'::regnamespace[]);
    if v_suspects is not null and exists (
      select from pg_catalog.pg_locks l
       where l.pid = pg_backend_pid() and l.mode = 'RowExclusiveLock'
         and l.relation = any (v_suspects)) then
      raise exception 'the function wrote to a table with a deferrable trigger or exclusion'
        using errcode = '42501';
    end if;
    v_deferred := sync_priv.deferred_constraints();
    if v_deferred is not null then
      execute format('set constraints %s immediate', v_deferred);
      execute format('set constraints %s deferred', v_deferred);
    end if;
  exception
    when assert_failure or others then
      -- Lost connections, rollbacks, resources, locks, operators, files, foreign servers, and
      -- what PostgreSQL says of itself.
      if left(sqlstate, 2) in ('08', '40', '53', '55', '57', '58', 'F0', 'HV', 'XX') then
        raise;
      end if;
      get stacked diagnostics v_detail = pg_exception_detail, v_context = pg_exception_context;
      error := concat(
        sqlerrm, ' (', sqlstate, ')', ': ' || nullif(rtrim(v_detail, '.'), ''),
        ', in ' || substring(v_context from 'PL/pgSQL function ((?!sync(?:_priv)?\.)[^\n]+)'));
      error_key := case (v_changes[1]).op
                     when 'purge' then format('purge of %s in %s',
                       coalesce((v_changes[1]).did, 'everybody'),
                       coalesce((v_changes[1]).collection, 'all collections'))
                     else (v_changes[1]).uri end;
      taken := 0;
  end;
end
$$;
comment on function sync_priv.apply_step(uuid, regclass, regprocedure, text, int) is
  'Give the next changes of a projection, p_max at most, to its function; what cannot be applied
comes back as error, and nothing is done.';
