-- Have a projection that the log no longer reaches back to start over, with purges first.
--
-- Called by: sync_priv.take_changes().
-- Locks: the row of its shard.
create or replace function sync_priv.restart_outrun(p_consumer sync.consumers)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_shard sync_priv.consumer_shards;
begin
  select s.* into v_shard
    from sync_priv.consumer_shards s
   where s.consumer_id = p_consumer.consumer_id and s.shard = 0
   order by s.version desc
   limit 1
     for update;
  if sync_priv.is_outrun(v_shard) then
    perform sync_priv.restart_projection(p_consumer, true);
  end if;
end
$$;
comment on function sync_priv.restart_outrun(sync.consumers) is
  'Start a projection over that the log has outrun.';
