-- The repos that a replay of some dids means to a consumer: those of its filter.
--
-- Called by: sync.replay().
create or replace function sync_priv.replayed_repos(p_consumer sync.consumers, p_dids text[])
  returns bigint[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
           when p_dids is null then sync_priv.covered_repos(p_consumer.dids)
           else array(select r from unnest(sync_priv.covered_repos(p_dids)) as u (r)
                       where p_consumer.dids is null
                          or r = any (sync_priv.covered_repos(p_consumer.dids)))
         end
$$;
comment on function sync_priv.replayed_repos(sync.consumers, text[]) is
  'Ids of the repos of p_dids that the consumer covers; null for every repo.';
