-- A rev never goes back (CM-15, BF-12). A head may be forgotten as a whole, when a repo is
-- purged (D-15) or an unsigned import gives way to a verified load.
--
-- Called by: a row trigger on sync.heads.
-- Raises: SY104.
create or replace function sync_priv.guard_head()
  returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.rev < old.rev or (new.rev is not null and new.seen_rev < old.seen_rev) then
    raise exception 'the rev of repo % cannot go back from % to %', old.repo_id,
      greatest(old.rev, old.seen_rev), least(new.rev, new.seen_rev)
      using errcode = 'SY104';
  end if;
  return new;
end
$$;
comment on function sync_priv.guard_head() is 'Raise SY104 when a rev would go back.';

create or replace trigger guard_head
  before update on sync.heads
  for each row execute function sync_priv.guard_head();
