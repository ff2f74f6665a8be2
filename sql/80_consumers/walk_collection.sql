-- Deliver stored rows of one (repo, collection) beyond an rkey, then say in exactly one more step
-- how far that went: `done`, or `pend` with the last rkey.
--
-- Called by: sync_priv.walk_steps().
create or replace function sync_priv.walk_collection(
  p_repo_id       bigint,
  p_collection_id int,
  p_after_rkey    text,
  p_head          bigint,
  p_room          int)
  returns setof sync_priv.batch_step
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count int := 0;
  v_step  sync_priv.batch_step;
begin
  if p_room > 0 and sync_priv.is_shown(p_repo_id, p_collection_id) then
    return query
      select 'deliver', p_head, 'create', s.repo_id, s.collection_id, s.rkey, s.rev, s.cid,
             false, s.value, s.raw, s.reason, s.indexed_at
        from sync.stored_records s
       where s.repo_id = p_repo_id and s.collection_id = p_collection_id
         and s.rkey > p_after_rkey collate "C"
       order by s.rkey
       limit p_room;
    get diagnostics v_count = row_count;
  end if;
  v_step.repo_id := p_repo_id;
  v_step.collection_id := p_collection_id;
  v_step.step := case when v_count = p_room then 'pend' else 'done' end;
  v_step.rkey := p_after_rkey;
  if v_count = p_room and v_count > 0 then
    select s.rkey into v_step.rkey
      from sync.stored_records s
     where s.repo_id = p_repo_id and s.collection_id = p_collection_id
       and s.rkey > p_after_rkey collate "C"
     order by s.rkey
    offset p_room - 1 limit 1;
  end if;
  return next v_step;
end
$$;
comment on function sync_priv.walk_collection(bigint, int, text, bigint, int) is
  'Deliver up to p_room stored rows of a collection of a repo, then one step: done or pend.';
