-- Every partition of the change log, and why it is still there.
create or replace view sync.log_status with (security_barrier) as
select p.name collate "C" as name,
       p.state,
       p.first_id,
       p.last_id,
       p.bytes,
       p.oldest_at,
       p.newest_at,
       case
         when p.state = 'closed' then coalesce(
           (select format('consumer %s, shard %s', c.name, s.shard)
              from sync_priv.consumer_shards s
              join sync.consumers c using (consumer_id)
             where s.position < p.last_id and not s.is_lost
               and p.newest_at < sync_priv.clock() - l.keep_age
             order by s.position limit 1),
           case when p.newest_at >= sync_priv.clock() - l.keep_age then 'age' end)
         when p.state in ('retired', 'pending', 'detached') then
           (select format('process %s', k.pid)
              from pg_catalog.pg_locks k
             where k.locktype = 'relation' and k.granted
               and k.relation in ('sync.changes'::regclass,
                                  to_regclass(format('sync_priv.%I', p.name)))
               and k.database = (select d.oid from pg_catalog.pg_database d
                                  where d.datname = current_database())
               and k.pid <> pg_backend_pid()
             order by k.pid limit 1)
       end as held_back_by,
       l.keep_age,
       l.max_age,
       l.max_bytes
  from sync_priv.log_partitions p
 cross join sync_priv.log_state l
 order by p.part;
comment on view sync.log_status is
  'The partitions of the change log: current, ahead, closed, or given up and on their way out.';
comment on column sync.log_status.bytes is 'With its indexes.';
comment on column sync.log_status.held_back_by is
  'closed: `age` (younger than keep_age) or the consumer that has furthest to go; given up: a process
that still uses the log.';
comment on column sync.log_status.keep_age is 'As set by sync.set_retention(), like the next two.';
