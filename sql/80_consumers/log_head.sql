-- The highest change id this statement sees, never below what was retired.
--
-- Called by: whatever places a reader.
create or replace function sync_priv.log_head()
  returns bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return greatest((select max(c.change_id) from sync.changes c),
                  (select s.log_floor from sync_priv.log_state s), 0);
end
$$;
comment on function sync_priv.log_head() is 'The highest visible change id.';
