-- TRUNCATE leaves no rows to log: refuse it.
--
-- Called by: a trigger on sync.stored_records.
-- Raises: SY105.
create or replace function sync_priv.refuse_truncate()
  returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'sync.stored_records cannot be truncated: its readers would not learn of it'
    using errcode = 'SY105', hint = 'Use sync.untrack_repos() or sync.untrack_collections().';
end
$$;
comment on function sync_priv.refuse_truncate() is 'Raise SY105.';

create or replace trigger refuse_truncate
  before truncate on sync.stored_records
  for each statement execute function sync_priv.refuse_truncate();
