-- How everything stands, in one row. Reads every row of sync.repos once.
create or replace view sync.status with (security_barrier) as
with repos as (
  select count(*) filter (where r.tracked_by is not null) as repos,
         count(*) filter (where r.tracked_by is not null and r.sync_state = 'pending') as pending,
         count(*) filter (where r.sync_state = 'fetching') as fetching,
         count(*) filter (where r.sync_state = 'synchronized') as synchronized,
         count(*) filter (where r.sync_state = 'desynchronized') as desynchronized,
         count(*) filter (where r.sync_state = 'failed') as failed,
         count(*) filter (where r.tracked_by is not null
                            and (not r.is_active
                                 or r.local_status is not distinct from 'takendown')) as hidden,
         count(*) filter (where r.tracked_by is null) as tombstones
    from sync.repos r
)
select r.repos,
       r.pending,
       r.fetching,
       r.synchronized,
       r.desynchronized,
       r.failed,
       r.hidden,
       r.tombstones,
       (select case when c.reltuples >= 0 then c.reltuples::bigint
                    else (select count(*) from (select from sync.stored_records limit 1000001) s)
               end
          from pg_catalog.pg_class c
         where c.oid = 'sync.stored_records'::regclass) as records_estimate,
       (select count(*) from sync_priv.held_events) as held_events,
       (select count(*) from sync_priv.purges) as purges,
       (select count(*) from sync.sources s where s.is_enabled) as sources,
       (select max(s.lag_seconds) from sync.source_status s where s.is_enabled) as lag_seconds,
       (select count(*) from sync.sources s where s.gap_since is not null) as open_gaps,
       l.log_epoch,
       (l.log_epoch || '.' || l.log_floor) collate "C" as log_floor,
       (l.log_epoch || '.'
         || greatest((select max(c.change_id) from sync.changes c), l.log_floor)) collate "C"
         as log_head,
       (select count(*) from sync.consumers) as consumers,
       (select coalesce(sum(p.events), 0)::bigint from sync.problems p) as problems
  from repos r
  cross join sync_priv.log_state l;
comment on view sync.status is 'How everything stands, in one row.';
comment on column sync.status.repos is 'Tracked repos; the states beside it add up to it.';
comment on column sync.status.hidden is 'Tracked, but not active upstream or taken down here.';
comment on column sync.status.tombstones is 'No longer tracked; the rows stay.';
comment on column sync.status.records_estimate is 'As of the last ANALYZE or VACUUM; before the first, counted up to a million.';
comment on column sync.status.lag_seconds is
  'The longest time since the cursor of an enabled source last moved.';
