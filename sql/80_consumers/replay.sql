-- Deliver again what is stored: of everything, of some dids, of some collections.
--
-- A purge comes first for every repo it covers, hidden ones and tombstones too, then the visible
-- records as `create`; the reader's copy is right again whatever had become of it. Without dids
-- and collections it is also the way back for a consumer that was outrun: it goes on at the end
-- of the log. The purges wait their turn; they are not delivered by this call.
--
-- Idempotent: what is pending already is not delivered twice.
--
-- It notifies, so that a worker that waits reads on.
--
-- Called by: apps.
-- Locks: the consumer's shards, in order.
-- Raises: SY302, SY001 for an unknown did, SY002, SY301 for a part of an outrun consumer.
create or replace function sync.replay(
  p_name        text,
  p_dids        text[] default null,
  p_collections text[] default null)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_consumer sync.consumers := sync_priv.own_consumer(p_name);
  v_shard    sync_priv.consumer_shards;
  v_missing  text;
begin
  perform sync_priv.check_patterns(p_collections);
  select d into v_missing from unnest(p_dids) as u (d)
   where not exists (select from sync.repos r where r.did = d) limit 1;
  if found then
    raise exception 'did % is not known here', left(v_missing, 100) using errcode = 'SY001';
  end if;
  -- A loop, since every shard has its own frontier; it also locks them in order.
  for v_shard in
    select s.* from sync_priv.consumer_shards s
     where s.consumer_id = v_consumer.consumer_id order by s.shard for update
  loop
    if p_dids is null and p_collections is null then
      update sync_priv.consumer_shards s
         set position = case when sync_priv.is_outrun(v_shard) then sync_priv.log_head()
                             else s.position end,
             frontier = 0, is_restart = true, is_lost = false
       where (s.consumer_id, s.shard) = (v_shard.consumer_id, v_shard.shard);
      delete from sync_priv.consumer_pending p
       where (p.consumer_id, p.shard) = (v_shard.consumer_id, v_shard.shard);
    else
      perform sync_priv.refuse_outrun(v_consumer, v_shard);
      perform sync_priv.owe_purges(
        v_consumer, v_shard, sync_priv.replayed_repos(v_consumer, p_dids),
        case when p_collections is not null
             then sync_priv.covered_collections(v_consumer.collections, p_collections) end);
    end if;
  end loop;
  perform pg_notify('sync_changes', '');
end
$$;
comment on function sync.replay(text, text[], text[]) is
  'Deliver to consumer p_name again what is stored of p_dids and p_collections, or everything,
after a purge. The way back after SY301. Raises SY302, SY001, SY002, SY301.';
