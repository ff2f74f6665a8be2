-- Note that this transaction is about to call a projection's function, and give out a token for
-- what belongs to it. One at a time: while that function runs, nothing it calls can take changes
-- from another projection, though it is still the service that the session belongs to.
--
-- Called by: sync_priv.claim_projection(), sync_priv.begin_rebuild().
-- Raises: 42501 in the function of a projection.
create or replace function sync_priv.enter_run(p_projection_id bigint)
  returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_token uuid;
begin
  insert into sync_priv.projection_runs (xid, projection_id, token)
  values (pg_current_xact_id(), p_projection_id, gen_random_uuid())
      on conflict (xid) do nothing
  returning token into v_token;
  if v_token is null then
    raise exception 'the function of a projection cannot run projections' using errcode = '42501';
  end if;
  return v_token;
end
$$;
comment on function sync_priv.enter_run(bigint) is
  'Begin to run a projection in this transaction; returns the token that the rest of it needs.';
