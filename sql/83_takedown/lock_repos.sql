-- Lock repos by did, in repo_id order, or refuse the first did that is not known here.
--
-- Called by: sync.take_down_repos(), sync.restore_repos().
-- Locks: the repos' rows.
-- Raises: SY001.
create or replace function sync_priv.lock_repos(p_dids text[])
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_missing text;
begin
  select d into v_missing from unnest(p_dids) as u (d)
   where not exists (select from sync.repos r where r.did = d) limit 1;
  if found then
    raise exception 'did % is not known here', coalesce(left(v_missing, 100), 'null')
      using errcode = 'SY001';
  end if;
  perform from sync.repos r where r.did = any (p_dids) order by r.repo_id for no key update;
end
$$;
comment on function sync_priv.lock_repos(text[]) is
  'Lock the repos of p_dids in repo_id order. Raises SY001.';
