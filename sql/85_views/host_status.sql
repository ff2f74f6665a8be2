-- Every PDS: whether it may be asked now, and how its repos stand.
create or replace view sync.host_status with (security_barrier) as
select h.url,
       -- Drivers cannot read -infinity.
       nullif(h.ready_at, '-infinity') as ready_at,
       h.ready_at <= sync_priv.clock() as is_ready,
       h.failures,
       h.last_error,
       count(r.repo_id) as repos,
       count(r.repo_id) filter (where r.sync_state = 'fetching') as fetching,
       count(r.repo_id) filter (where r.sync_state in ('pending', 'desynchronized', 'failed')
                                  and r.is_active) as waiting,
       h.updated_at
  from sync.hosts h
  left join sync.repos r on r.host_id = h.host_id and r.tracked_by is not null
 group by h.host_id;
comment on view sync.host_status is 'Every PDS with its budget, failures and repos.';
comment on column sync.host_status.url is 'Empty for repos whose PDS is not known yet.';
comment on column sync.host_status.ready_at is 'Null: no fetch had to wait yet.';
