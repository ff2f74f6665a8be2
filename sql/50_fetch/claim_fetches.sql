-- Claim repos to fetch. Each claim draws a new token; only its holder may reconcile.
--
-- Repos whose PDS is not known yet count as one host, for which a fetcher resolves the DID.
-- has_records tells it whether keys alone are worth staging first.
--
-- A claim belongs to the session that made it: when that ends, it is given up.
--
-- Called by: fetchers, in a transaction of its own (BF-02: durable before the request).
-- Locks: queue rows and repos, skip locked: an app that idles on a repo does not stop it.
create or replace function sync.claim_fetches(p_limit int, p_per_host int)
  returns table (repo_id bigint, did text, pds_url text, signing_key text, generation bigint,
                 fetch_token bigint, head_rev text, has_records boolean)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_fetcher int := sync_priv.fetcher_id();
  v_reached bigint;
  v_ids     bigint[];
begin
  perform sync_priv.feed_fetches(p_per_host);
  v_reached := sync_priv.reached_generation();
  v_ids := array(
    select q.repo_id
      from sync.fetch_queue q
      join sync.hosts h using (host_id)
      join sync.repos r on r.repo_id = q.repo_id
     where h.ready_at <= sync_priv.clock() and r.filter_generation <= v_reached
       and not exists (select from sync_priv.purges p
                        where coalesce(p.repo_id, 0) = r.repo_id)
     order by q.queued_at, q.repo_id
     limit p_limit
       for update of q skip locked
       for no key update of r skip locked);
  delete from sync.fetch_queue q where q.repo_id = any (v_ids);
  return query
    update sync.repos r
       set sync_state = 'fetching', fetch_token = nextval('sync_priv.tokens'),
           fetcher_id = v_fetcher,
           -- In this order: a token newer than a gap means a start behind it.
           fetch_started_at = sync_priv.clock()
      from sync.heads h
     where r.repo_id = any (v_ids) and h.repo_id = r.repo_id
       and r.tracked_by = 'did' and r.is_active
       and r.sync_state in ('pending', 'desynchronized', 'failed')
    returning r.repo_id, r.did, r.pds_url, r.signing_key, r.generation, r.fetch_token, h.rev,
              exists (select from sync.stored_records s where s.repo_id = r.repo_id);
end
$$;
comment on function sync.claim_fetches(int, int) is
  'Claim up to p_limit repos to fetch, at most p_per_host of one PDS at a time.';
