-- The filter generation up to which nothing can slip between an export and the stream: every
-- source that is read has a durable cursor, and every lane works with this filter or a newer one
-- (BF-01). -1, so that no repo qualifies, while a source has no cursor, or while rows of a
-- collection that a fetch would bring are on their way out.
--
-- Called by: sync_priv.feed_fetches(); sync.claim_fetches(), for what is queued may wait long
-- enough to see it change.
create or replace function sync_priv.reached_generation()
  returns bigint
  language sql
  stable
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set jit = off
as $$
  select case
           when exists (select from sync_priv.purges p
                          join sync.collections c using (collection_id)
                         where coalesce(p.repo_id, 0) = 0
                           and sync_priv.is_tracked_nsid(c.nsid)) then -1
           else coalesce(min(case when c.seq is null then -1 else c.filter_generation end),
                         9223372036854775807)
         end
    from sync.sources s
    left join sync_priv.lanes c using (source_id)
   where s.is_enabled
$$;
comment on function sync_priv.reached_generation() is
  'The filter generation that every lane has reached; -1 while nothing may be fetched.';
