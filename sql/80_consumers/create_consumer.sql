-- Make a reader of the change log that belongs to the calling role.
--
-- 'beginning' delivers every visible record first (as `create`, not live), then every change;
-- 'now' only what changes from here on. It starts at the end of the log either way: what is
-- stored comes from the tables, so it does not matter how much of the log is left.
--
-- p_shards > 1 splits the repos among as many workers; each shard is read on its own.
--
-- Called by: apps.
-- Raises: SY304 when the name is taken, SY002 for a bad argument.
create or replace function sync.create_consumer(
  p_name        text,
  p_collections text[] default null,
  p_dids        text[] default null,
  p_start       text default 'beginning',
  p_shards      int default 1)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
begin
  if coalesce(p_name, '') = '' or length(p_name) > 200 then
    raise exception 'a consumer needs a name of at most 200 characters' using errcode = 'SY002';
  elsif p_start is null or p_start not in ('beginning', 'now') then
    raise exception 'p_start is ''beginning'' or ''now''' using errcode = 'SY002';
  elsif p_shards is null or p_shards not between 1 and 1024 then
    raise exception 'p_shards must be between 1 and 1024' using errcode = 'SY002';
  elsif cardinality(p_dids) = 0 then
    raise exception 'an empty list of dids matches nothing: leave it null for all'
      using errcode = 'SY002';
  end if;
  perform sync_priv.check_patterns(p_collections);
  perform sync_priv.check_dids(p_dids);
  insert into sync.consumers (name, owner_name, collections, dids, shards, created_at)
  values (p_name, sync_priv.caller(), p_collections, p_dids, p_shards, sync_priv.clock())
      on conflict (name) do nothing
  returning consumer_id into v_id;
  if v_id is null then
    raise exception 'there is a consumer % already', quote_literal(p_name)
      using errcode = 'SY304', hint = 'Choose another name, or drop it with sync.drop_consumer().';
  end if;
  insert into sync_priv.consumer_shards (consumer_id, shard, position, frontier)
  select v_id, n, sync_priv.log_head(), case p_start when 'beginning' then 0 end
    from generate_series(0, p_shards - 1) as g (n);
end
$$;
comment on function sync.create_consumer(text, text[], text[], text, int) is
  'Make the consumer p_name, from the ''beginning'' or from ''now'', for all collections and dids
or some. Raises SY304 (name taken), SY002.';
