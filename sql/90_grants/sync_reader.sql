-- What an app may do: read the views, keep consumers of its own. It holds no table, sees no
-- hidden record and cannot write what we store. Usage of sync_priv opens the few functions below,
-- nothing else there.
grant usage on schema sync, sync_priv to sync_reader;
grant select on sync.records, sync.change_log, sync.problems, sync.status, sync.repo_status,
  sync.host_status, sync.source_status, sync.consumer_status, sync.log_status,
  sync.projection_status to sync_reader;
grant execute on function
  sync.create_consumer(text, text[], text[], text, int),
  sync.read_changes(text, int, int),
  sync.replay(text, text[], text[]),
  sync.drop_consumer(text),
  sync.position_id(text),
  sync.get_record(text),
  sync.sample_repos(int),
  sync.list_views(),
  sync.list_records(text, text, int) to sync_reader;

-- A view calls its functions in the name of whoever reads it; none of these reveals a record.
grant execute on function sync_priv.clock(), sync_priv.cid_text(bytea),
  sync_priv.base32_pair(int), sync_priv.cid_bytes(text), sync_priv.partition_size(),
  sync_priv.without_workers() to sync_reader;

-- The views of collections; what their columns are made of computes, and reads nothing.
grant usage on schema sync_views, sync_migration to sync_reader;
grant execute on all functions in schema sync_migration to sync_reader;
grant select on all tables in schema sync_views to sync_reader;

-- Projections. What runs or rebuilds one does so with the rights of its caller, since it calls
-- functions of apps; what it needs of our tables it asks of these, who see whose projection it is.
grant execute on function
  sync.create_projection(text, regclass, text[], regprocedure, boolean),
  sync.run_projection(text, int),
  sync.pause_projection(text),
  sync.resume_projection(text),
  sync.rebuild_projection(text),
  sync.drop_projection(text) to sync_reader;
grant execute on function
  sync_priv.add_projection(text, regclass, text[], regprocedure),
  sync_priv.claim_projection(text), sync_priv.take_changes(uuid, int),
  sync_priv.apply_step(uuid, regclass, regprocedure, text, int),
  sync_priv.deferred_constraints(), sync_priv.fail_projection(uuid, text, text),
  sync_priv.leave_run(uuid),
  sync_priv.begin_rebuild(text), sync_priv.own_writes(regclass),
  sync_priv.difference_steps(regclass, regclass) to sync_reader;

-- Searches: sync.search() calls the function of one with the rights of its caller.
grant usage on schema sync_search to sync_reader;
grant execute on function sync.search(text, real[], int), sync.list_searches() to sync_reader;
