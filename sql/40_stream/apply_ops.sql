-- Apply the operations of the commits that continue their chains, and move the heads.
--
-- Every operation is logged; the table gets the net effect. Operations outside the tracked
-- collections are not ours (BF-07), though their commits belong to the chain. What an operation is
-- to the readers depends on what is stored, which somebody may have written by hand: an update of
-- a record that was deleted here creates it, and a delete of it is no change.
--
-- Called by: sync_priv.walk_chain().
create or replace function sync_priv.apply_ops(p_run bigint)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('sync.self_logged', 'on', true);
  perform sync_priv.intern_ops(p_run);
  with ops as materialized (
    select o.*, c.collection_id,
           row_number() over (order by o.repo_id, o.pos, o.op_no) as place,
           lag(o.action) over (partition by o.repo_id, c.collection_id, o.rkey
                               order by o.pos, o.op_no) as action_before
      from sync_priv.applied_ops(p_run) o
      join sync.collections c on c.nsid = o.collection
      join (select distinct t.collection from sync_priv.applied_ops(p_run) t
             where sync_priv.is_tracked_nsid(t.collection)) k on k.collection = o.collection
  ), stored as materialized (
    select k.place
      from sync_priv.stored_places(
             array(select o.repo_id from ops o order by o.place),
             array(select o.collection_id from ops o order by o.place),
             array(select o.rkey from ops o order by o.place)) k (place)
  ), logged as (
    insert into sync_priv.pending_changes
      (xid, kind, repo_id, collection_id, rkey, rev, cid, is_live, value, raw, reason)
    select pg_current_xact_id(),
           case when o.action = 'delete' then 'delete' when b.is_stored then 'update'
                else 'create' end,
           o.repo_id, o.collection_id, o.rkey, o.rev, o.cid, true, o.value, o.raw, o.reason
      from ops o
      join sync_priv.visible_repos v using (repo_id)
     cross join lateral (
       select case when o.action_before is not null then o.action_before <> 'delete'
                   else o.place in (select s.place from stored s) end) b (is_stored)
     where o.action <> 'delete' or b.is_stored
     order by o.repo_id, o.pos, o.op_no
  ), net as (
    select distinct on (o.repo_id, o.collection_id, o.rkey) o.*
      from ops o
     order by o.repo_id, o.collection_id, o.rkey, o.pos desc, o.op_no desc
  ), removed as (
    delete from sync.stored_records s
     using net n
     where n.action = 'delete'
       and (s.repo_id, s.collection_id, s.rkey) = (n.repo_id, n.collection_id, n.rkey)
  )
  insert into sync.stored_records as s
    (repo_id, collection_id, rkey, cid, rev, value, raw, reason, indexed_at)
  select n.repo_id, n.collection_id, n.rkey, n.cid, n.rev, n.value, n.raw, n.reason,
         sync_priv.clock()
    from net n
   where n.action <> 'delete'
      on conflict (repo_id, collection_id, rkey) do update
     set cid = excluded.cid, rev = excluded.rev, value = excluded.value, raw = excluded.raw,
         reason = excluded.reason, indexed_at = excluded.indexed_at;
  perform set_config('sync.self_logged', '', true);
  update sync.heads h
     set rev = e.rev, data_cid = e.data_cid, commit_block = e.commit_block,
         seen_rev = greatest(h.seen_rev, e.rev), trust = 'verified'
    from (select distinct on (w.repo_id) w.repo_id, w.rev, w.data_cid,
                 coalesce(s.commit_block, q.commit_block) as commit_block
            from pg_temp.walk w
            left join pg_temp.stage_events s on w.is_staged and s.event_no = w.event_key
            left join lateral sync_priv.held_event(
                                case when not w.is_staged then w.event_key end) q on true
           where w.run = p_run and w.outcome = 'applied'
           order by w.repo_id, w.pos desc) e
   where h.repo_id = e.repo_id;
end
$$;
comment on function sync_priv.apply_ops(bigint) is
  'Write the operations and heads of the applied commits of one run of pg_temp.walk.';
