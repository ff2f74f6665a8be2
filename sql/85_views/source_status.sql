-- Every firehose source: where its slowest lane stands and what was lost.
create or replace view sync.source_status with (security_barrier) as
select s.source_id,
       s.url,
       s.kind,
       s.is_enabled,
       min(c.seq) as seq,
       count(c.lane) as lanes,
       min(c.updated_at) as moved_at,
       extract(epoch from sync_priv.clock() - min(c.updated_at))::float8 as lag_seconds,
       s.gap_since,
       s.error,
       s.compared_at,
       s.trouble
  from sync.sources s
  left join sync_priv.lanes c on c.source_id = s.source_id
 group by s.source_id;
comment on view sync.source_status is 'Every firehose source with its durable cursor.';
comment on column sync.source_status.seq is 'Every event up to it is applied; null before the first.';
comment on column sync.source_status.lag_seconds is
  'Since a cursor last moved, which an idle lane does as well.';
comment on column sync.source_status.gap_since is
  'Events were lost since then; every tracked repo is being compared with its PDS.';
comment on column sync.source_status.compared_at is
  'When every tracked repo had last been compared with its PDS.';
comment on column sync.source_status.trouble is
  'Why the service that reads it is not connected right now; null when all is well.';
