-- What was refused or odd, counted by reason, host and did: totals and what came since.
--
-- Samples of the bytes stay in the private tables: they may be of a hidden account.
create or replace view sync.problems with (security_barrier) as
with counted as (
  select t.reason, t.host, t.did, t.events, t.detail, t.first_seen_at, t.last_seen_at
    from sync_priv.problem_totals t
  union all
  select d.reason, d.host, d.did, d.events, d.detail, d.noted_at, d.noted_at
    from sync_priv.problem_deltas d
)
select c.reason,
       c.host,
       c.did,
       sum(c.events)::bigint as events,
       (array_agg(c.detail order by c.last_seen_at desc)
          filter (where c.detail is not null))[1] as detail,
       min(c.first_seen_at) as first_seen_at,
       max(c.last_seen_at) as last_seen_at
  from counted c
 group by c.reason, c.host, c.did;
comment on view sync.problems is 'Everything refused or odd, counted by reason, host and did.';
comment on column sync.problems.detail is 'The latest one.';
