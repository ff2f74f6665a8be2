-- How long to wait after the n-th failure in a row: 5 s, 10 s, 20 s, … at most an hour,
-- spread by a quarter so that many repos of one broken host do not come back together.
--
-- Called by: sync.fail_fetch(), sync.reconcile_repos().
create or replace function sync_priv.backoff(p_attempts int)
  returns interval
  language sql
  volatile
as $$
  select least(interval '1 hour', interval '5 seconds' * power(2, least(p_attempts, 12) - 1))
         * (0.75 + random() / 4)
$$;
comment on function sync_priv.backoff(int) is 'Waiting time after p_attempts failures (BF-16).';
