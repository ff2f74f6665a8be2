"""Statements by login: what each is refused, and what works.

The page docs/explanation/roles.md says the same in words.
"""

from tests.sql.driver import POST, did

DENIED = "42501"
NOT_YOURS = "SY302"
NOT_UPDATABLE = "55000"

# Of a login that is no operator, whatever else it may do.
NOT_AN_OPERATOR = [
    "set role sync_owner",
    "set session authorization sync_owner",
    "set session authorization standpipe",
    "select set_config('role', 'sync_owner', true)",
    "select set_config('session_authorization', 'sync_owner', true)",
    "grant sync_owner to first",
    "alter role sync_owner login",
    "alter role current_user superuser",
    "create role mine",
    "reassign owned by sync_owner to current_user",
    "alter schema sync owner to current_user",
    "alter table sync.repos owner to current_user",
    "alter function sync.read_changes owner to current_user",
    "alter function sync.read_changes security invoker",
    "alter view sync.records set (security_barrier = false)",
    "create or replace view sync.records as select 1",
    "drop schema sync cascade",
    "drop view sync.records",
    "drop function sync.maintain()",
    "create schema mine",
    "create table sync.mine ()",
    "create table sync_priv.mine ()",
    "create table sync_stage.mine ()",
    "create table public.mine ()",
    "create function sync.mine() returns int return 1",
    "create or replace function sync_priv.clock() returns timestamptz return now()",
    "create or replace function sync_priv.caller() returns name return 'sync_owner'",
    "create type sync_priv.mine as (x int)",
    "create sequence sync_priv.mine",
    "create view sync_priv.mine as select 1 as x",
    "create operator sync_priv.=== (function = texteq, leftarg = text, rightarg = text)",
    "create trigger mine before insert on sync.repos execute function sync_priv.mark_log()",
    "create rule mine as on insert to sync.repos do instead nothing",
    "create rule mine as on insert to sync.records do instead nothing",
    "create index on sync.stored_records (rev)",
    "create policy mine on sync.repos",
    "create statistics sync.mine on rev, cid from sync.stored_records",
    "create publication mine for table sync.repos",
    "alter publication sync_records set (publish = 'insert')",
    "drop publication sync_changes",
    "alter table sync.stored_records disable trigger all",
    "alter table sync.changes detach partition sync_priv.changes_1",
    "drop table sync_priv.changes_1",
    "truncate sync.changes",
    "truncate sync.stored_records",
    "lock table sync_priv.log_state",
    "alter sequence sync_priv.change_ids restart",
    "select setval('sync_priv.change_ids', 1)",
    "select nextval('sync_priv.tokens')",
    "copy (select 1) to program 'true'",
    "select pg_read_file('PG_VERSION')",
    "alter database template1 set role = 'sync_owner'",
    f"select sync.create_view('mine', '{POST}', null, '{{}}')",
    "select sync.drop_view('mine')",
    "select sync.put_lexicon('a.b.c', '{}', 'did:plc:x', 'b')",
    "create view sync_views.mine as select 1 as x",
    f"select sync.enable_search('mine', '{POST}', 'null', 'http://x/', 3)",
    "select sync.disable_search('mine')",
    "select * from sync.count_texts('mine')",
    "create table sync_search.mine ()",
    "create function sync_search.mine__find(real[], int) returns int return 1",
    "create function sync_migration.mine() returns int return 1",
    "create or replace function sync_migration.as_text(jsonb) returns text return 'x'",
    "select sync.track_repos('{}')",
    "select sync.untrack_repos('{}')",
    "select sync.resync_repos('{}')",
    "select sync.track_collections('{}')",
    "select sync.untrack_collections('{}')",
    "select sync.take_down_repos('{}')",
    "select sync.restore_repos('{}')",
    "select sync.set_retention('1 day')",
    "select sync_priv.number_changes()",
    "select sync_priv.open_epoch()",
    "select sync_priv.retire_log()",
    "select sync_priv.purge_chunk()",
    "select sync_priv.make_partitions(0, 99999999)",
    "select sync_priv.own_consumer('firsts')",
    "select sync_priv.caller()",
    "select sync_priv.own_projection('x', '{sync_reader}')",
    "select sync_priv.change_projection('x', 'running')",
    "select sync_priv.enter_run(1)",
    "set session_replication_role = replica",
]  # fmt: skip

# The setting that keeps the log's triggers quiet helps nobody who cannot write.
FORGING = [
    "insert into sync.repos (did) values ('did:plc:forged')",
    "insert into sync.stored_records values (1, 1, 'x', '', '3k', '{}')",
    "insert into sync.heads (repo_id) values (99)",
    "insert into sync.filters (kind, pattern) values ('did', 'did:plc:forged')",
    "insert into sync.consumers (name, owner_name, shards) values ('x', 'second', 1)",
    "update sync.consumers set owner_name = 'second'",
    "update sync_priv.consumer_shards set position = 0",
    "update sync.projections set apply_schema = 'second'",
    "update sync.searches set embedder_url = 'http://x/'",
    "insert into sync_priv.projection_runs values ('1', 1, gen_random_uuid())",
    "insert into sync.changes (change_id, kind) values (99, 'purge')",
    "insert into sync_priv.pending_changes (xid, kind) values (pg_current_xact_id(), 'purge')",
    "insert into sync_priv.log_markers (xid) values (pg_current_xact_id())",
    "insert into sync_priv.purges (repo_id, started_at) values (1, now())",
    "insert into sync_priv.held_events (repo_id, is_due, kind) values (1, true, 'commit')",
    "insert into sync_stage.events (event_no, did, kind) values (1, 'did:plc:x', 'commit')",
    "update sync.stored_records set value = '{}'",
    "update sync.repos set is_active = true, local_status = null",
    "delete from sync.stored_records",
    "delete from sync_priv.purges",
]  # fmt: skip

# What the service calls, and nobody else.
INGESTING = [
    "select sync.open_stage()",
    "select sync.maintain()",
    "select * from sync.claim_lane(1)",
    "select * from sync.apply_events(1, 0, 1, 1, 1)",
    "select * from sync.claim_fetches(1, 1)",
    "select * from sync.claim_import('did:plc:x')",
    "select * from sync.diff_repos('{}', '{}', '{}')",
    "select * from sync.reconcile_repos('{}', '{}', '{}')",
    "select sync.set_identity('did:plc:x', 'x', 'y', 'z')",
    "select sync.doubt_identities('{did:plc:x}')",
    "select * from sync.list_heads(0, 1)",
    "select * from sync.repo_proof('did:plc:x')",
    "select sync.add_source('wss://forged.example')",
    "select sync.remove_source('wss://forged.example')",
    "select * from sync.waiting_texts('x', '', '', 1)",
    "select sync.store_embeddings('x', '{}', '{}', '{}', '{}')",
    "select sync.refuse_text('x', 'a', 'b', 'c', 'd')",
    "select sync.note_search_error('x', 'forged')",
]  # fmt: skip

CONSUMING = [
    "select sync.create_consumer('x')",
    "select * from sync.read_changes('firsts')",
    "select sync.replay('firsts')",
    "select sync.drop_consumer('firsts')",
    "select * from sync.get_record('at://did:plc:x/a.b.c/d')",
    f"select * from sync.list_records('{POST}')",
    "select sync.position_id('1.1')",
    "select * from sync.search('x', '{1}')",
]  # fmt: skip

APP_TABLE = ["select from first.notes", "delete from first.notes", "drop table first.notes"]

_ON_NEW_ROWS = "after insert on second.notes referencing new table as new_rows for each statement"

# An app has a schema, and could make in it what hangs on our objects.
HANGING_ON = [
    "create table second.mine (repo_id bigint references sync.repos)",
    "create table second.mine () inherits (sync.repos)",
    "create table second.mine partition of sync.changes for values from (0) to (1)",
    "create trigger mine after insert on second.notes execute function sync_priv.mark_log()",
    f"create trigger mine {_ON_NEW_ROWS} execute function sync_priv.log_record_changes()",
    "create operator second.@@@ (function = sync_priv.check_patterns, rightarg = text[])",
    "create cast (sync_priv.batch_step as text) with inout",
    "create function second.f() returns int return 1; alter routine second.f owner to sync_owner",
    "alter table second.notes set schema sync",
    "alter table second.notes owner to sync_owner",
    "comment on view sync.records is 'mine'",
]  # fmt: skip

REFUSED = {
    "second": {
        DENIED: [*NOT_AN_OPERATOR, *FORGING, *INGESTING, *APP_TABLE, *HANGING_ON,
                 "set role sync_ingester", "set role first"],
        NOT_YOURS: ["select * from sync.read_changes('firsts')", "select sync.replay('firsts')",
                    "select sync.drop_consumer('firsts')", "select sync.drop_consumer('none')"],
        NOT_UPDATABLE: ["insert into sync.records (did) values ('did:plc:x')",
                        "update sync.records set value = '{}'", "delete from sync.records",
                        "delete from sync.change_log"],
    },
    "ingester": {
        DENIED: [*NOT_AN_OPERATOR, *FORGING, *CONSUMING, *APP_TABLE, "set role sync_reader",
                 "select from sync.records", "select from sync.change_log",
                 "select from sync.log_status", "create table first.mine ()"],
    },
    "replicator": {
        DENIED: [*NOT_AN_OPERATOR, *FORGING, *INGESTING, *CONSUMING, *APP_TABLE,
                 "set role sync_reader", "select from sync.records", "select from sync.heads",
                 "select from sync.filters", "select from sync_priv.held_events",
                 "select timeline from sync_priv.log_state"],
    },
    "stranger": {
        DENIED: [*NOT_AN_OPERATOR, *FORGING, *INGESTING, *CONSUMING, *APP_TABLE,
                 "set role sync_reader", "set role sync_replicator", "select from sync.records",
                 "select from sync.status", "select from sync.repo_status",
                 "select sync_priv.cid_text('')", "select null::sync_priv.batch_step"],
    },
}  # fmt: skip

MAY = {
    "second": [
        *[f"select * from sync.{view}" for view in (
            "records", "change_log", "problems", "status", "repo_status", "host_status",
            "source_status", "consumer_status", "log_status")],
        "select sync.create_consumer('mine'), sync.replay('mine'), sync.drop_consumer('mine')",
        f"select * from sync.get_record('at://{did(0)}/{POST}/a')",
        f"select * from sync.list_records('{POST}')",
        "select * from sync.list_searches()",
        "create table second.copy as select * from sync.records",
        "listen sync_changes",
    ],
    "ingester": [
        *[f"select * from sync.{view}" for view in (
            "problems", "status", "repo_status", "host_status", "source_status",
            "consumer_status")],
        *INGESTING[:2],
        "insert into pg_temp.stage_repos values (1, 1, 1, '3k', '', '', 'verified')",
        "select * from sync.claim_fetches(1, 1)",
    ],
    "replicator": [
        *[f"select * from sync.{table}" for table in (
            "stored_records", "repos", "collections", "changes")],
        "copy sync.stored_records to stdout",
        "select log_epoch, log_floor from sync_priv.log_state",
    ],
}  # fmt: skip
