-- Place the reader of a projection at the end of the log, with every stored record still to come:
-- after a purge of its repo, or into an empty table.
--
-- Called by: sync_priv.restart_outrun(), sync_priv.begin_rebuild().
-- Locks: the row of its shard.
create or replace function sync_priv.restart_projection(
  p_consumer sync.consumers, p_owes_purges boolean)
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  update sync_priv.consumer_shards s
     set position = greatest(s.position, sync_priv.log_head()),
         frontier = 0, is_restart = p_owes_purges, is_lost = false, version = s.version + 1
   where s.consumer_id = p_consumer.consumer_id;
  delete from sync_priv.consumer_pending p where p.consumer_id = p_consumer.consumer_id;
end
$$;
comment on function sync_priv.restart_projection(sync.consumers, boolean) is
  'Have the reader of a projection begin with every stored record again.';
