-- The partitions of the log with what is in them, and those that are no longer part of it but
-- still there. States:
--
--   current   being written               ahead     made before it is needed
--   closed    waiting to be retired       retired   behind the floor: to be detached
--   pending   its detaching was broken off: to be finished
--   detached  to be dropped
--
-- Reads the first and the last row of each by the index.
--
-- Called by: sync_priv.retire_log(), sync.retired_partitions(), sync.log_status.
create or replace view sync_priv.log_partitions as
select n.part,
       n.name,
       case
         when n.is_pending is null then 'detached'
         when n.is_pending then 'pending'
         when n.part > n.current_part then 'ahead'
         when n.part = n.current_part then 'current'
         when l.change_id is null or l.change_id <= s.log_floor then 'retired'
         else 'closed'
       end as state,
       f.change_id as first_id,
       l.change_id as last_id,
       f.logged_at as oldest_at,
       l.logged_at as newest_at,
       n.bytes,
       sum(n.bytes) filter (where n.is_pending is false) over () as total_bytes
  from (select substr(c.relname, 9)::bigint as part,
               c.relname as name,
               i.inhdetachpending as is_pending,
               pg_total_relation_size(c.oid) as bytes,
               q.last_value / z.size as current_part,
               z.size
          from sync_priv.change_ids q
         cross join (select sync_priv.partition_size() as size) z
         cross join pg_catalog.pg_class c
          left join pg_catalog.pg_inherits i on i.inhrelid = c.oid
         where c.relnamespace = 'sync_priv'::regnamespace
           and c.relkind = 'r'
           and c.relname ~ '^changes_[0-9]+$') n
 cross join sync_priv.log_state s
  left join lateral (
    select x.change_id, x.logged_at from sync.changes x
     where x.change_id >= n.part * n.size and x.change_id < (n.part + 1) * n.size
     order by x.change_id limit 1) f on n.is_pending is false
  left join lateral (
    select x.change_id, x.logged_at from sync.changes x
     where x.change_id >= n.part * n.size and x.change_id < (n.part + 1) * n.size
     order by x.change_id desc limit 1) l on n.is_pending is false;
comment on view sync_priv.log_partitions is 'The partitions of the change log and their states.';
