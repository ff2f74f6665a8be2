-- A leaky bucket without a clock of its own: how full it is now, when it was p_filled at p_at and
-- loses one every p_every. Never above p_most, so that the past is forgotten in bounded time.
--
-- Called by: sync_priv.walk_accounts(), sync_priv.walk_statuses().
create or replace function sync_priv.leaked(
    p_filled int, p_at timestamptz, p_every interval, p_most int)
  returns int
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
           when p_at < sync_priv.clock() - p_every * p_most then 0
           else least(p_most, greatest(0, p_filled - floor(
                  extract(epoch from sync_priv.clock() - p_at)
                  / extract(epoch from p_every))::int))
         end
$$;
comment on function sync_priv.leaked(int, timestamptz, interval, int) is
  'What is left of p_filled at p_at in a bucket of p_most that loses one every p_every.';
