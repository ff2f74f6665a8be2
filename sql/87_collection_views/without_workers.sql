-- True, and not parallel safe: a query that has it in a condition is planned without workers, and
-- nothing is left of it in the plan.
--
-- Called by: views with an order, in the name of whoever reads them.
create or replace function sync_priv.without_workers()
  returns boolean
  language sql
  stable
  parallel unsafe
as $$
  select true
$$;
comment on function sync_priv.without_workers() is
  'True; keeps parallel workers out of a query.';
