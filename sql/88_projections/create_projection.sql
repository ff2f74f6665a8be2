-- Have an app's table kept from the change log by a function of the app, exactly once: a running
-- service calls it after every change, sync.run_projection() does so by hand.
--
-- The function takes (target regclass, changes sync.change[]) and writes to `target` only, which
-- in a rebuild is another table of the same form. It is SECURITY DEFINER with a search_path of its
-- own, and belongs, as the table does, to a role that may read (sync_reader).
--
-- The table has to be empty, unless p_adopt says that what is in it may be replaced: then it is
-- rebuilt at once, in this transaction.
--
-- Called by: apps.
-- Raises: SY502 when the table or the function does not do (the message says what would help),
-- SY503 when the name or the table is taken, SY002 for a bad argument.
create or replace function sync.create_projection(
  p_name text, p_target regclass, p_collections text[], p_apply regprocedure,
  p_adopt boolean default false)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_has_rows boolean;
begin
  perform sync_priv.add_projection(p_name, p_target, p_collections, p_apply);
  execute format('select exists (select from %s)', p_target) into v_has_rows;
  if v_has_rows and not p_adopt then
    raise exception 'the table % is not empty', p_target
      using errcode = 'SY502',
            hint = 'Empty it first; or have its rows replaced with p_adopt => true.';
  elsif v_has_rows then
    perform sync.rebuild_projection(p_name);
  end if;
end
$$;
comment on function sync.create_projection(text, regclass, text[], regprocedure, boolean) is
  'Have p_target kept from the changes of p_collections (null = all) by p_apply, a function that
takes (regclass, sync.change[]). Raises SY502, SY503, SY002.';
