-- What is left to do with partitions that the log has given up: `retired` ones are to be
-- detached, `pending` ones to be finished, `detached` ones to be dropped. None of it can be done
-- in a function. Nothing is detached before the next partition is made: the way there waits for
-- old transactions, and making one would wait behind it.
--
-- Called by: the service, which does it on a connection of the owner.
create or replace function sync.retired_partitions()
  returns table (name text, state text)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select p.name::text, p.state
    from sync_priv.log_partitions p
   where p.state in ('pending', 'detached')
      or p.state = 'retired'
         and not exists (select from sync_priv.log_partitions x where x.state = 'pending')
         and (select to_regclass('sync_priv.changes_'
                || (q.last_value + sync_priv.partition_size() / 2) / sync_priv.partition_size())
                from sync_priv.change_ids q) is not null
   order by p.part
$$;
comment on function sync.retired_partitions() is
  'Partitions of the log that the service has to detach, finish detaching, or drop, in order.';
