-- Refuse to read staging tables that sync.open_stage() did not make.
--
-- Called by: every ingest function that reads them, before its first read.
-- Raises: SY102.
create or replace function sync_priv.require_stage()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if 6 <> (
    select count(*)
      from pg_catalog.pg_class c
     where c.relnamespace = pg_catalog.pg_my_temp_schema()
       and c.relname in ('stage_events', 'stage_repos', 'stage_records',
                         'first_loads', 'diff', 'walk')
       and c.relkind = 'r'
       and pg_catalog.pg_get_userbyid(c.relowner) = 'sync_owner'
  ) then
    raise exception 'the staging tables of this connection are missing or not ours'
      using errcode = 'SY102', hint = 'Call sync.open_stage() once after connecting.';
  end if;
end
$$;
comment on function sync_priv.require_stage() is 'Raise SY102 unless sync.open_stage() ran here.';
