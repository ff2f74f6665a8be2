-- Read the next changes of a projection and advance it, as sync.read_changes() does; their net
-- effect comes back as one array, null when nothing is left of it.
--
-- Net means: every purge first, then each record at most once. What a purge has taken away again
-- is left out, and so is what came and went. One that the log has outrun starts over by itself: a
-- purge of every repo comes before its records.
--
-- Called by: sync_priv.apply_step().
-- Locks: the row of its shard.
-- Raises: SY501.
create or replace function sync_priv.take_changes(
  p_token uuid, p_max int, out changes sync.change[], out taken bigint, out is_whole boolean)
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_projection sync.projections := sync_priv.run_of(p_token);
  v_consumer   sync.consumers := (select c from sync.consumers c
                                   where c.consumer_id = v_projection.consumer_id);
  v_is_small   boolean;
begin
  perform sync_priv.restart_outrun(v_consumer);
  with given as materialized (
    select g.kind, g.did, g.collection, g.rkey, g.rev, g.cid, g.value, g.raw, g.reason, g.place
      from sync_priv.read_shard(v_consumer, p_max, 0) with ordinality
           as g (position, kind, did, collection, rkey, rev, cid, is_live, value, raw, reason,
                 logged_at, place)
  ), batch as (
    select count(*) as taken,
           count(*) < 2 or sum(coalesce(pg_column_size(g.value), 0)::bigint
                               + coalesce(pg_column_size(g.raw), 0)) <= sync_priv.batch_bytes()
             as is_small
      from given g
  ), purge as (
    select coalesce(g.did, '') as did, coalesce(g.collection, '') as collection,
           max(g.place) as place
      from given g
     where g.kind = 'purge'
       and (g.collection is null
            or sync_priv.covers_nsid(v_consumer.collections, g.collection))
     group by 1, 2
  ), record as (
    select g.did, g.collection, g.rkey, max(g.place) as place,
           (array_agg(g.kind order by g.place))[1] = 'create' as is_new
      from given g where g.kind in ('create', 'update', 'delete') group by 1, 2, 3
  ), purged as (
    select r.*, greatest(a.place, b.place, c.place, d.place) as purged_at
      from record r
      left join purge a on (a.did, a.collection) = (r.did, r.collection)
      left join purge b on (b.did, b.collection) = (r.did, '')
      left join purge c on (c.did, c.collection) = ('', r.collection)
      left join purge d on (d.did, d.collection) = ('', '')
  ), net as (
    select row('purge', nullif(p.did, ''), nullif(p.collection, ''), null, null, null, null, null,
               null, null)::sync.change as change, 0 as turn, p.place
      from purge p
     union all
    select row(case g.kind when 'delete' then 'delete' else 'put' end, g.did, g.collection, g.rkey,
               'at://' || g.did || '/' || g.collection || '/' || g.rkey, g.cid, g.rev, g.value,
               g.raw, g.reason)::sync.change, 1, g.place
      from purged r
      join given g using (place)
     where r.place > coalesce(r.purged_at, 0)
       and (g.kind <> 'delete' or (r.purged_at is null and not r.is_new))
  )
  select b.is_small, b.taken,
         case when b.is_small then (select array_agg(n.change order by n.turn, n.place) from net n)
         end
    into v_is_small, taken, changes
    from batch b;
  if not v_is_small then
    raise exception '% changes are too large for one batch', taken using errcode = '54000';
  end if;
  select s.frontier is null and not sync_priv.has_pending(s) into is_whole
    from sync_priv.consumer_shards s
   where s.consumer_id = v_consumer.consumer_id and s.shard = 0
   order by s.version desc
   limit 1;
  update sync.projections p
     set error = null, error_key = null, error_at = null
   where p.projection_id = v_projection.projection_id and p.error is not null;
end
$$;
comment on function sync_priv.take_changes(uuid, int) is
  'The net effect of the next changes of a projection, how many there were, and whether every
stored record has been given by then. Raises SY501.';
