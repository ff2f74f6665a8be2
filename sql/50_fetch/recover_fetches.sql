-- Give up whatever is being fetched, by whomever: the database was restored. It is fetched again
-- (BF-14). What was held stays and is walked at the next chance. A repo that somebody has locked is
-- left to sync.maintain().
--
-- Called by: sync_priv.notice_restore(), operators.
create or replace function sync.recover_fetches()
  returns bigint
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync_priv.fetch_state s set first_token = nextval('sync_priv.tokens');
  return sync_priv.recover_lost_fetches();
end
$$;
comment on function sync.recover_fetches() is
  'Give up every fetch that was claimed before now; returns how many repos are back in line at once.';
