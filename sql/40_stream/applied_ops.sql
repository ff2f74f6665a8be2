-- The operations of the commits of one run that were found to continue their chains.
--
-- Called by: sync_priv.apply_ops().
create or replace function sync_priv.applied_ops(p_run bigint)
  returns table (repo_id bigint, pos bigint, rev text, op_no bigint, action text, collection text,
                 rkey text, cid bytea, value jsonb, raw bytea, reason text)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select e.repo_id, e.pos, e.rev, o.op_no, o.action, o.collection collate "C",
         o.rkey collate "C", o.cid, o.value, o.raw, o.reason
    from (
      select w.repo_id, w.pos, w.rev, s.ops
        from pg_temp.walk w
        join pg_temp.stage_events s on s.event_no = w.event_key
       where w.run = p_run and w.outcome = 'applied' and w.is_staged
      union all
      select w.repo_id, w.pos, w.rev, h.ops
        from pg_temp.walk w
        cross join lateral sync_priv.held_event(w.event_key) h
       where w.run = p_run and w.outcome = 'applied' and not w.is_staged
    ) e
    cross join lateral unnest(e.ops) with ordinality
      as o (action, collection, rkey, cid, value, raw, reason, op_no)
$$;
comment on function sync_priv.applied_ops(bigint) is
  'Operations of the applied commits of one run of pg_temp.walk.';
