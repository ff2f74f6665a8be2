-- Fold the appended problem counters into totals, at most 10,000 at a time.
--
-- Called by: sync.maintain(), one at a time.
create or replace function sync_priv.fold_problems()
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  with folded as (
    delete from sync_priv.problem_deltas d
     where d.delta_id in (select p.delta_id from sync_priv.problem_deltas p
                           order by p.delta_id limit 10000)
    returning d.*
  )
  insert into sync_priv.problem_totals as t
    (reason, host, did, events, detail, sample, first_seen_at, last_seen_at)
  select f.reason, f.host, f.did, sum(f.events),
         (array_agg(f.detail order by f.delta_id desc) filter (where f.detail is not null))[1],
         (array_agg(f.sample order by f.delta_id desc) filter (where f.sample is not null))[1],
         min(f.noted_at), max(f.noted_at)
    from folded f
   group by f.reason, f.host, f.did
   order by f.reason, f.host, f.did
      on conflict (reason, host, did) do update
     set events = t.events + excluded.events,
         detail = coalesce(excluded.detail, t.detail),
         sample = coalesce(excluded.sample, t.sample),
         last_seen_at = greatest(t.last_seen_at, excluded.last_seen_at)
$$;
comment on function sync_priv.fold_problems() is 'Fold sync_priv.problem_deltas into problem_totals.';
