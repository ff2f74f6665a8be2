-- Say how much of the change log is kept.
--
-- What is younger than p_keep_age stays. What is older goes once every consumer has passed it. The
-- limits, where given, hold whether consumers have passed or not: those that are overtaken get
-- SY301 and start over, which costs them a walk over the stored records.
--
-- Called by: operators.
-- Raises: SY002.
create or replace function sync.set_retention(
  p_keep_age  interval,
  p_max_age   interval default null,
  p_max_bytes bigint default null)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_keep_age is null or p_keep_age < '0' or p_max_age <= '0' or p_max_age < p_keep_age then
    raise exception 'p_keep_age must not be negative, nor longer than p_max_age'
      using errcode = 'SY002',
            hint = 'For example: select sync.set_retention(''1 day'', ''7 days'').';
  elsif p_max_bytes < 1048576 then
    raise exception 'p_max_bytes is less than a MiB' using errcode = 'SY002';
  end if;
  update sync_priv.log_state
     set keep_age = p_keep_age, max_age = p_max_age, max_bytes = p_max_bytes;
end
$$;
comment on function sync.set_retention(interval, interval, bigint) is
  'Keep changes for p_keep_age and until every consumer has passed them, but none older than
p_max_age, nor more than p_max_bytes. Raises SY002.';
