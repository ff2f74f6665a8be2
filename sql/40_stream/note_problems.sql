-- Count what was refused, by reason, host and did. Deltas are appended, so that no two
-- workers ever update one row; sync.maintain() folds them.
--
-- Called by: the service, and walk_chain() through its own insert.
create or replace function sync.note_problems(
    p_reasons text[], p_hosts text[], p_dids text[], p_details text[], p_events bigint[],
    p_samples bytea[])
  returns void
  language sql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  insert into sync_priv.problem_deltas (reason, host, did, detail, events, sample, noted_at)
  select u.reason, coalesce(u.host, ''), coalesce(u.did, ''), left(u.detail, 500), u.events,
         substring(u.sample from 1 for 4096), sync_priv.clock()
    from unnest(p_reasons, p_hosts, p_dids, p_details, p_events, p_samples)
      as u (reason, host, did, detail, events, sample)
$$;
comment on function sync.note_problems(text[], text[], text[], text[], bigint[], bytea[]) is
  'Count refused events: parallel arrays of reason, host, did, detail, how many, and a sample of
the bytes (cut at 4096).';
