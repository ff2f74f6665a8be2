"""Roles: what each may do, and that nothing else works."""

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow

from sync.roles import INGESTER, READER, REPLICATOR
from sync.schema import sql_folder
from tests.postgres import Server
from tests.sql.driver import POST, did
from tests.sql.readers import World, make_reader

Session = psycopg.Connection[DictRow]
Open = Callable[..., Session]

BASE_TABLES = [
    "sync.repos", "sync.heads", "sync.collections", "sync.stored_records", "sync.changes",
    "sync.consumers", "sync_priv.consumer_shards", "sync_priv.consumer_pending",
    "sync.hosts", "sync.sources", "sync.cursors", "sync.filters", "sync.fetch_queue",
    "sync_priv.purges", "sync_priv.log_state", "sync_priv.held_events",
    "sync_priv.pending_changes", "sync_priv.problem_totals", "sync_priv.problem_deltas",
    "sync_priv.visible_repos", "sync.searches",
]  # fmt: skip
READABLE = [
    "sync.records", "sync.change_log", "sync.problems", "sync.status", "sync.repo_status",
    "sync.host_status", "sync.source_status", "sync.consumer_status",
]  # fmt: skip


@pytest.fixture(scope="module")
def app_roles(postgres: Server) -> Iterator[tuple[str, str]]:
    """Return two application roles, each a member of sync_reader and of nothing else."""
    names = ("first_app", "second_app")
    for name in names:
        role = sql.Identifier(name)
        postgres.administer(
            sql.SQL("create role {} nologin").format(role),
            sql.SQL("grant sync_reader to {}").format(role),
            sql.SQL("grant {} to standpipe").format(role),
        )
    yield names
    for name in names:
        postgres.administer(sql.SQL("drop role {}").format(sql.Identifier(name)))


def become(db: Session, role: str) -> None:
    db.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))


def refused(db: Session, statement: str) -> bool:
    """Tell whether a statement is refused for lack of a privilege."""
    try:
        with db.transaction(force_rollback=True):
            db.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


@pytest.fixture
def app(db: Session, app_roles: tuple[str, str]) -> Session:
    """Return `db` as an application role, with one visible and one hidden record."""
    world = World(db)
    world.load(0, "a")
    world.load(1, "h")
    world.take_down(1)
    become(db, app_roles[0])
    return db


@pytest.mark.parametrize("table", BASE_TABLES)
def test_an_app_reads_and_writes_no_base_table(app: Session, table: str) -> None:
    assert refused(app, f"select from {table}")
    assert refused(app, f"delete from {table}")


@pytest.mark.parametrize("view", READABLE)
def test_an_app_reads_every_view_to_its_last_column(app: Session, view: str) -> None:
    app.execute(f"select * from {view}".encode()).fetchall()


def test_an_app_sees_no_hidden_record_by_any_way_in(app: Session) -> None:
    ways = [
        "select rkey from sync.records",
        f"select rkey from sync.list_records('{POST}')",
        f"select rkey from sync.get_record('at://{did(1)}/{POST}/h')",
        "select rkey from sync.change_log where rkey is not null",
    ]
    found = [row["rkey"] for way in ways for row in app.execute(way.encode()).fetchall()]
    assert "h" not in found
    assert "a" in found
    reader = make_reader(app)
    assert [row["rkey"] for row in reader.read_all()] == ["a"]


def test_no_function_of_an_app_is_called_with_a_hidden_row(app: Session) -> None:
    """A cheap function in a condition would run before the filter without a security barrier."""
    app.execute("create temporary table seen (rkey text)")
    app.execute(
        "create function pg_temp.peek(text) returns boolean language plpgsql cost 0.0001 as "
        "$$ begin insert into seen values ($1); return true; end $$"
    )
    app.execute("select from sync.records where pg_temp.peek(rkey)")
    assert [row["rkey"] for row in app.execute("select * from seen").fetchall()] == ["a"]


@pytest.mark.parametrize(
    "statement",
    [
        "select sync.track_repos('{}')",
        "select sync.untrack_repos('{}')",
        "select sync.resync_repos('{}')",
        "select sync.track_collections('{}')",
        "select sync.untrack_collections('{}')",
        "select sync.take_down_repos('{}')",
        "select sync.restore_repos('{}')",
        "select sync.add_source('wss://x.example')",
        "select * from sync.apply_events(1, 0, 1, 1, 1)",
        "select * from sync.reconcile_repos('{}', '{}', '{}')",
        "select sync.open_stage()",
        "select sync.maintain()",
        "select sync_priv.own_consumer('app')",
        "create table sync.mine ()",
        "create function sync.mine() returns int return 1",
    ],
)
def test_an_app_forges_and_steers_nothing(app: Session, statement: str) -> None:
    assert refused(app, statement)


def test_an_app_acknowledges_and_drops_only_its_own_consumers(
    app: Session, app_roles: tuple[str, str]
) -> None:
    make_reader(app, "first")
    become(app, app_roles[1])
    for call in ("read_changes", "replay", "drop_consumer"):
        with pytest.raises(psycopg.Error) as caught, app.transaction():
            app.execute(f"select sync.{call}('first')".encode())
        assert caught.value.sqlstate == "SY302"
    make_reader(app, "second").read_all()


def test_an_operator_may_drop_any_consumer(app: Session) -> None:
    make_reader(app, "first")
    app.execute("reset role")
    app.execute("select sync.drop_consumer('first')")


def test_the_ingester_calls_every_function_that_its_list_names(db: Session) -> None:
    text = (sql_folder() / "90_grants" / "sync_ingester.sql").read_text(encoding="utf-8")
    named = set(re.findall(r"'(\w+)'", text.split("p.proname in (")[1].split(")\n  loop")[0]))
    rows = db.execute(
        "select distinct p.proname as name from pg_proc p "
        "where p.pronamespace = 'sync'::regnamespace "
        "and has_function_privilege('sync_ingester', p.oid, 'execute')"
    ).fetchall()
    assert {row["name"] for row in rows} == named


@pytest.mark.parametrize("table", BASE_TABLES)
def test_the_ingester_reads_and_writes_no_base_table(db: Session, table: str) -> None:
    become(db, INGESTER)
    assert refused(db, f"select from {table}")
    assert refused(db, f"delete from {table}")


def test_the_ingester_reads_no_records_and_decides_nothing(db: Session) -> None:
    become(db, INGESTER)
    for statement in (
        "select from sync.records",
        "select sync.track_repos('{}')",
        "select sync.take_down_repos('{}')",
        "select sync.create_consumer('x')",
    ):
        assert refused(db, statement)
    db.execute("select * from sync.status, sync.repo_status, sync.source_status").fetchall()


def test_the_replicator_reads_what_publications_carry(db: Session) -> None:
    become(db, REPLICATOR)
    for table in ("stored_records", "repos", "collections", "changes"):
        db.execute(f"select from sync.{table}".encode())
        assert refused(db, f"delete from sync.{table}")
    assert refused(db, "select from sync_priv.held_events")
    assert refused(db, "select sync.maintain()")


def test_everybody_else_may_do_nothing(db: Session) -> None:
    rows = db.execute(
        """
        select p.oid::regprocedure::text as name from pg_proc p
         where p.pronamespace::regnamespace::text in ('sync', 'sync_priv', 'sync_stage')
           and has_function_privilege('public', p.oid, 'execute')
        union all
        select n.nspname from pg_namespace n
         where n.nspname like 'sync%' and has_schema_privilege('public', n.oid, 'usage')
        """
    ).fetchall()
    assert rows == []


def test_functions_that_run_as_the_owner_are_the_ones_that_must(db: Session) -> None:
    """What a role calls runs as the owner, unless it reads nothing but views of that role.

    Or unless it runs code of an app, which must have no rights of ours.
    """
    rows = db.execute(
        """
        select distinct p.proname as name from pg_proc p, unnest(%s::text[]) as role
         where p.pronamespace = 'sync'::regnamespace and not p.prosecdef
           and has_function_privilege(role, p.oid, 'execute')
        """,
        [[READER, INGESTER, REPLICATOR]],
    ).fetchall()
    guests = {"create_projection", "rebuild_projection", "run_projection"}
    # What names the table or the function of one search, on which its caller has rights.
    of_one = {"search", "waiting_texts", "store_embeddings", "refuse_text"}
    assert {row["name"] for row in rows} == {"get_record", *guests, *of_one}


def test_a_temporary_type_of_an_app_is_not_taken_for_a_builtin_one(
    db: Session, app_roles: tuple[str, str]
) -> None:
    """A domain has a CHECK: it would run the app's code with the rights of sync_owner."""
    become(db, app_roles[0])
    db.execute(
        "create function pg_temp.trap(pg_catalog.text) returns boolean language plpgsql as $$"
        " begin raise exception 'ran as %', current_user; end $$"
    )
    db.execute("create domain pg_temp.text as pg_catalog.text check (pg_temp.trap(value))")
    db.execute("create domain pg_temp.timestamptz as pg_catalog.timestamptz check (false)")
    db.execute("select sync.create_consumer('mine', array['app.bsky.feed.post'])")
    assert db.execute("select * from sync.read_changes('mine')").fetchall() == []
    assert db.execute("select * from sync.list_records('a.b.c', '1.1.x')").fetchall() == []
    db.execute("select sync.replay('mine'), sync.drop_consumer('mine')")
