-- Every projection: whether it runs, how far it is behind, and what stopped it. The error is for
-- its own role and the operators, as it may quote what is in the table.
create or replace view sync.projection_status with (security_barrier) as
select p.name,
       format('%I.%I', p.target_schema, p.target_name) as target,
       format('%I.%I', p.apply_schema, p.apply_name) as apply,
       p.owner_name,
       c.collections,
       p.state,
       s.position,
       s.lag_rows,
       s.lag_seconds,
       s.is_walking,
       s.pending,
       s.is_at_rest,
       case when m.is_mine then p.error end as error,
       case when m.is_mine then p.error_key end as error_key,
       p.error_at,
       s.read_at as applied_at,
       p.created_at
  from sync.projections p
  join sync.consumers c using (consumer_id)
  join sync.consumer_status s on s.name = c.name
 cross join lateral (
   select exists (select from pg_catalog.pg_roles r
                   where r.rolname in (p.owner_name, 'sync_owner')
                     and pg_has_role(current_user, r.oid, 'member')) as is_mine) m;
comment on view sync.projection_status is 'Every projection, with its lag and its last error.';
comment on column sync.projection_status.state is
  'running, paused, or failed: stopped by an error that trying again would not mend.';
comment on column sync.projection_status.lag_rows is
  'Changes up to the end of the log; its collections may have fewer.';
comment on column sync.projection_status.pending is 'Collections whose stored records are owed.';
comment on column sync.projection_status.is_at_rest is 'The table holds everything there is.';
comment on column sync.projection_status.applied_at is 'When it last took changes, or looked.';
comment on column sync.projection_status.error is
  'What stopped it, or why its last batch is tried again; for its role and operators only.';
comment on column sync.projection_status.error_key is
  'Which change stopped it: a URI, or the purge.';
