-- Refuse a database that was restored from part of a dump: without a counter or a head nothing
-- fails at once, it only goes wrong later. What cannot be told from a healthy database (no
-- records at all, no held events) is not noticed; docs/how-to/backup.md says what may be left out.
--
-- Called by: sync.schema.upgrade().
-- Raises: SY106 with what is missing.
create or replace function sync_priv.refuse_torn()
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_missing text;
begin
  select string_agg(m.part, ', ') into v_missing
    from (values
      ('sync_priv.log_state', not exists (select from sync_priv.log_state)),
      ('sync_priv.filter_state', not exists (select from sync_priv.filter_state)),
      ('sync_priv.fetch_state', not exists (select from sync_priv.fetch_state)),
      ('sync_priv.change_ids', (select s.last_value from sync_priv.change_ids s)
                               < (select max(c.change_id) from sync.changes c)),
      ('sync.heads', exists (select from sync.repos) and not exists (select from sync.heads)),
      ('sync.collections', exists (select from sync.stored_records)
                           and not exists (select from sync.collections)),
      ('sync_priv.consumer_shards', exists (
        select from sync.consumers c
         where not exists (select from sync_priv.consumer_shards s
                            where s.consumer_id = c.consumer_id)))
    ) as m (part, is_missing)
   where m.is_missing;
  if v_missing is not null then
    raise exception 'this database was restored without the contents of %', v_missing
      using errcode = 'SY106', hint = 'Restore a whole dump: docs/how-to/backup.md.';
  end if;
end
$$;
comment on function sync_priv.refuse_torn() is
  'Raise SY106 when a restored database lacks part of its dump.';
