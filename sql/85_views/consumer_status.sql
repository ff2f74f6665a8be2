-- Every shard of every consumer: how far it is behind and whether it can go on.
--
-- Spells out sync_priv.log_head() and its like: a view reads tables as its owner, but calls
-- functions as its reader, who may not read them.
create or replace view sync.consumer_status with (security_barrier) as
select c.name,
       s.shard,
       c.owner_name,
       (l.log_epoch || '.' || s.position) collate "C" as position,
       greatest(h.change_id - s.position - (
         select coalesce(sum(g.next_id - 1 - greatest(g.last_id, s.position)), 0)
           from sync_priv.log_gaps g
          where g.last_id < h.change_id and g.next_id - 1 > s.position), 0)::bigint as lag_rows,
       coalesce(extract(epoch from sync_priv.clock() - (
         select n.logged_at from sync.changes n
          where n.change_id > s.position order by n.change_id limit 1))::float8, 0) as lag_seconds,
       s.frontier is not null as is_walking,
       d.pending,
       s.frontier is null and d.pending = 0 and s.position >= h.change_id as is_at_rest,
       s.is_lost or s.position < l.log_floor as is_outrun,
       s.read_at,
       c.collections,
       c.dids,
       c.created_at
  from sync.consumers c
  join sync_priv.consumer_shards s using (consumer_id)
  cross join sync_priv.log_state l
  cross join lateral (
    select greatest((select max(m.change_id) from sync.changes m), l.log_floor) as change_id) h
  cross join lateral (
    select count(*) as pending from sync_priv.consumer_pending p
     where (p.consumer_id, p.shard) = (s.consumer_id, s.shard)
       and p.pending_id >= s.pending_from) d;
comment on view sync.consumer_status is 'Every shard of every consumer, with its lag.';
comment on column sync.consumer_status.lag_rows is
  'Changes up to the end of the log; the filter may pass fewer.';
comment on column sync.consumer_status.lag_seconds is 'Age of the first change not yet read.';
comment on column sync.consumer_status.is_walking is
  'It has not yet come to every stored record since the beginning or a replay.';
comment on column sync.consumer_status.pending is 'Collections whose stored records are owed.';
comment on column sync.consumer_status.is_at_rest is 'Everything there is has been delivered.';
comment on column sync.consumer_status.is_outrun is 'Only sync.replay() helps: see SY301.';
