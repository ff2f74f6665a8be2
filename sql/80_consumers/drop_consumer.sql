-- Forget a consumer and where it stood. Waits for a worker that is reading it.
--
-- Called by: apps.
-- Locks: the consumer and its shards.
-- Raises: SY302 when the caller has no such consumer.
create or replace function sync.drop_consumer(p_name text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_consumer sync.consumers := sync_priv.own_consumer(p_name);
begin
  perform from sync_priv.consumer_shards s
    where s.consumer_id = v_consumer.consumer_id order by s.shard for update;
  delete from sync_priv.consumer_pending p where p.consumer_id = v_consumer.consumer_id;
  delete from sync.consumers c where c.consumer_id = v_consumer.consumer_id;
end
$$;
comment on function sync.drop_consumer(text) is 'Forget the consumer p_name. Raises SY302.';
