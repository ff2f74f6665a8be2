-- What a walk delivers, row by row: of each item in turn the purge it owes, then its stored rows.
-- An item without any comes once, with `kind` null, so that the caller sees it is done.
--
-- Each part is bounded by the room there is and comes in the order of a key, so the caller may
-- stop at any row and has paid for no more. That holds only while the planner inlines this
-- function, as it does without a search_path of its own.
-- A hidden repo, or one on its way out, has no rows: when it becomes visible, the log says so.
--
-- Called by: sync_priv.walk_steps().
create or replace function sync_priv.walk_rows(
  p_consumer    sync.consumers,
  p_shard       sync_priv.consumer_shards,
  p_head        bigint,
  p_room        int,
  p_repos       bigint[],
  p_collections int[])
  returns table (item bigint, is_frontier boolean, item_repo bigint, item_collection int,
                 kind text, collection_id int, rkey text, rev text, cid bytea, value jsonb,
                 raw bytea, reason text, logged_at timestamptz)
  language sql
  stable
as $$
  select i.item, i.is_frontier, i.repo_id, i.collection_id, s.*
    from (select w.*,
                 (select v.repo_id from sync_priv.visible_repos v
                   where v.repo_id = w.repo_id) as shown_id
            from sync_priv.walk_items(p_consumer, p_shard, p_head, greatest(p_room / 4, 100),
                                      p_repos) with ordinality
                 as w (repo_id, collection_id, after_rkey, owes_purge, is_frontier, item)) i
    left join lateral (
      select 'purge', nullif(i.collection_id, 0), null::text, null::text, null::bytea,
             null::jsonb, null::bytea, null::text, sync_priv.clock()
       where i.owes_purge
      union all
      (select 'create', x.collection_id, x.rkey, x.rev, x.cid, x.value, x.raw, x.reason,
              x.indexed_at
         from sync.stored_records x
        where x.repo_id = case when i.collection_id = 0 and p_collections is null
                               then i.shown_id end
          and case when (select exists (select from sync_priv.purges))
                   then sync_priv.is_shown(i.repo_id, x.collection_id) else true end
        order by x.collection_id, x.rkey
        limit p_room + 1)
      union all
      select 'create', y.collection_id, y.rkey, y.rev, y.cid, y.value, y.raw, y.reason,
             y.indexed_at
        from sync_priv.walk_collections(
               case when i.collection_id <> 0 or p_collections is not null then i.shown_id end,
               i.collection_id, p_collections) as c (id)
       cross join lateral (
         select x.* from sync.stored_records x
          where x.repo_id = i.shown_id and x.collection_id = c.id
            and x.rkey > i.after_rkey collate "C"
          order by x.rkey
          limit p_room + 1) y
       where case when (select exists (select from sync_priv.purges))
                  then sync_priv.is_shown(i.repo_id, c.id) else true end
    ) s (kind, collection_id, rkey, rev, cid, value, raw, reason, logged_at) on true
   order by i.item, s.collection_id nulls first, s.rkey nulls first
   limit greatest(p_room / 4, 100) + p_room
$$;
comment on function sync_priv.walk_rows(sync.consumers, sync_priv.consumer_shards, bigint, int,
  bigint[], int[]) is 'What a walk delivers, item by item, each item at least once.';
