-- Have the PDSes of some accounts asked at once how they stand.
--
-- An answer that is under way is over: it may be older than what was heard now.
--
-- Called by: whatever hides an account by somebody's word; sync.set_identity() when it moved.
-- Locks: the caller holds the repos' rows; rows of sync_priv.account_checks.
create or replace function sync_priv.open_checks(p_repo_ids bigint[])
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into sync_priv.account_checks as c (repo_id, serial, ask_at)
  select u.repo_id, nextval('sync_priv.tokens'), sync_priv.clock()
    from unnest(p_repo_ids) as u (repo_id)
   order by u.repo_id
      on conflict (repo_id) do update
     set serial = excluded.serial, ask_at = excluded.ask_at;
  if p_repo_ids <> '{}' then
    perform pg_notify('sync_work', '');
  end if;
end
$$;
comment on function sync_priv.open_checks(bigint[]) is
  'Mark the standing of accounts as doubtful, so that their PDSes are asked.';
