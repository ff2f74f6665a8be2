-- What the service may do: stage, apply, and what it asks for in between. It holds no table and
-- no function that decides what is tracked; sources it must add, since they are configured.
grant usage on schema sync, sync_priv, sync_stage to sync_ingester;

do $$
declare
  v_routine regprocedure;
begin
  -- GRANT takes signatures; the list is of names, all functions of which are meant.
  for v_routine in
    select p.oid
      from pg_catalog.pg_proc p
     where p.pronamespace = 'sync'::regnamespace
       and p.proname in (
         -- the connection
         'open_stage', 'maintain', 'retired_partitions',
         -- the stream
         'add_source', 'pause_source', 'rewind_source', 'remove_source',
         'enabled_sources', 'share_lanes', 'claim_lane', 'leave_lane', 'filter_generation',
         'tracked_repos', 'tracked_collections', 'signer_serial', 'changed_signers',
         'repo_identity', 'apply_events', 'note_problems', 'stop_source', 'note_trouble',
         -- fetching
         'claim_fetches', 'claim_import', 'intern_collections', 'diff_repos', 'reconcile_repos',
         'fail_fetch', 'release_fetch', 'recover_fetches',
         -- identities
         'claim_identities', 'set_identity', 'fail_identity', 'doubt_identities',
         'claim_checks', 'answer_check',
         -- gaps
         'note_gap', 'open_gaps', 'close_gap', 'list_heads', 'report_revs', 'compare_repos',
         -- verify
         'repo_proof',
         -- views
         'index_steps',
         -- projections
         'run_projection', 'running_projections', 'note_projection_error',
         -- searches
         'list_searches', 'waiting_texts', 'store_embeddings', 'refuse_text',
         'note_search_error')
  loop
    execute format('grant execute on function %s to sync_ingester', v_routine);
  end loop;
end
$$;

-- To show how it goes; the views call these functions in the name of whoever reads them.
grant select on sync.status, sync.repo_status, sync.host_status, sync.source_status,
  sync.consumer_status, sync.problems to sync_ingester;
grant execute on function sync_priv.clock(), sync_priv.cid_text(bytea),
  sync_priv.base32_pair(int) to sync_ingester;

-- sync.run_projection() runs with the rights of its caller, for it calls functions of apps.
grant select on sync.projection_status to sync_ingester;
grant execute on function sync_priv.claim_projection(text), sync_priv.take_changes(uuid, int),
  sync_priv.apply_step(uuid, regclass, regprocedure, text, int),
  sync_priv.deferred_constraints(), sync_priv.fail_projection(uuid, text, text),
  sync_priv.leave_run(uuid)
  to sync_ingester;

-- Embeddings are written with its own rights, by the columns of each table that it was given.
grant usage on schema sync_search to sync_ingester;
grant execute on function sync_priv.vector_schema() to sync_ingester;
