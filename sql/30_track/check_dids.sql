-- Refuse a malformed or unsupported DID before it becomes a row (SX-01..04).
--
-- Called by: sync.track_repos(), sync.claim_import().
-- Raises: SY002 with the first one.
create or replace function sync_priv.check_dids(p_dids text[])
  returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bad text;
begin
  select d into v_bad
    from unnest(p_dids) as u (d)
   where d is null or length(d) > 2048
      or d !~ '^did:(plc:[a-z2-7]{24}|web:[a-zA-Z0-9.-]+(%3A[0-9]+)?)$'
      or d ~ '\n'
   limit 1;
  if found then
    raise exception 'not a did we can sync: %', coalesce(left(v_bad, 100), 'null')
      using errcode = 'SY002',
            hint = 'A did looks like did:plc:ewvi7nxzyoun6zhxrhs64oiz or did:web:example.com.';
  end if;
end
$$;
comment on function sync_priv.check_dids(text[]) is 'Raise SY002 for a did that is malformed or of another method.';
