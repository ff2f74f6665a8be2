-- Refuse a reader that the log no longer reaches back to.
--
-- Called by: sync_priv.read_shard(), sync.replay(), with the shard's row locked.
-- Raises: SY301.
create or replace function sync_priv.refuse_outrun(
  p_consumer sync.consumers,
  p_shard    sync_priv.consumer_shards)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if sync_priv.is_outrun(p_shard) then
    raise exception 'consumer % is outrun: the log no longer reaches back to its position',
        quote_literal(p_consumer.name)
      using errcode = 'SY301',
            hint = format('Start it over with: select sync.replay(%L)', p_consumer.name);
  end if;
end
$$;
comment on function sync_priv.refuse_outrun(sync.consumers, sync_priv.consumer_shards) is
  'Raise SY301 when the log was retired past the position of a shard.';
