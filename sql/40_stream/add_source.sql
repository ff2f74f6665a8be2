-- Read a firehose from now on: a relay, or a single PDS.
--
-- Idempotent; adding a stopped source again starts it.
--
-- Called by: operators, and the service at its start.
-- Raises: SY002 for a malformed URL or kind.
create or replace function sync.add_source(p_url text, p_kind text default 'relay')
  returns int
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id int;
begin
  -- A null is as malformed as anything else.
  if (p_url ~ '^wss?://[^/?#[:space:]]+$' and p_kind in ('relay', 'pds')) is not true then
    raise exception 'not a source: % (%)', left(p_url, 200), p_kind
      using errcode = 'SY002',
            hint = 'A source is wss://host, of the kind relay or pds.';
  end if;
  insert into sync.sources as s (url, kind, created_at) values (p_url, p_kind, sync_priv.clock())
      on conflict (url) do update set kind = excluded.kind, is_enabled = true, error = null
  returning s.source_id into v_id;
  return v_id;
end
$$;
comment on function sync.add_source(text, text) is
  'Read the firehose at p_url (wss://host), a relay or a pds; returns its source_id. Raises SY002.';
