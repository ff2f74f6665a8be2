"""Views of collections across sessions, roles, upgrades and dumps."""

import subprocess
from collections.abc import Callable

import psycopg
import pytest

from sync.database import connect_sync
from sync.schema import reload_sql, upgrade
from tests.postgres import Server
from tests.sql.readers import Session, World
from tests.sql.views import create, refusal, store, text_lexicon
from tests.sql.waiting import background, wait_until_blocked

Open = Callable[..., Session]


def test_two_sessions_that_make_one_view_at_once_do_so_one_after_the_other(session: Open) -> None:
    first, second = session(autocommit=False), session(autocommit=False)
    create(first, "posts", text_lexicon("a"))
    with background(second, lambda: create(second, "posts", text_lexicon("a", "b"))) as made:
        wait_until_blocked(session(), second)
        first.commit()
        assert made.result() == {"a": ("text", "kept"), "b": ("text", "added")}


@pytest.fixture
def schemas(postgres: Server, clone: str) -> str:
    """Return `clone` with schemas in which sync_owner may create nothing, or everything."""
    with psycopg.connect(clone) as conn:
        name = conn.info.dbname
    with psycopg.connect(postgres.admin_url(name), autocommit=True) as conn:
        for schema in ("closed", "operators", "owners", '"Open ; One"'):
            conn.execute(f"create schema {schema}".encode())
        conn.execute('grant usage, create on schema operators, "Open ; One" to standpipe')
        conn.execute('grant usage, create on schema owners, "Open ; One" to sync_owner')
    return clone


@pytest.mark.parametrize(
    ("view", "missing"),
    [
        ("closed.posts", "grant usage, create on schema closed to standpipe"),
        ("operators.posts", "grant usage, create on schema operators to sync_owner"),
        ('"Open ; One".posts', None),
    ],
)
def test_a_view_in_a_schema_of_the_app_needs_grants_and_says_which(
    schemas: str, view: str, missing: str | None
) -> None:
    with connect_sync(schemas, name="test") as conn:
        if missing is not None:
            said = refusal(conn, view, text_lexicon("a"))
            assert said.sqlstate == "SY002"
            assert missing in (said.message_hint or "")
            return
        create(conn, view, text_lexicon("a"))
        assert conn.execute(f"select * from {view}".encode()).fetchall() == []


def test_an_owner_may_make_views_where_the_owner_role_may(schemas: str) -> None:
    with connect_sync(schemas, name="test") as conn:
        conn.execute("set role sync_owner")
        create(conn, "owners.posts", text_lexicon("a"))


def test_an_upgrade_leaves_views_as_they_are(clone: str) -> None:
    with connect_sync(clone, name="test") as conn:
        world = World(conn, repos=2)
        create(conn, "posts", text_lexicon("a"), columns={"b": "value -> 'b'"}, indexed=["a"])
        for repo in range(2):
            store(conn, repo, "r", {"a": "x", "b": [1]})
        world.take_down(1)
        conn.commit()
        query = "select * from sync_views.posts"
        before = conn.execute(query).fetchall()
        conn.commit()
        upgrade(clone)
        with conn.transaction():
            conn.execute("set local role sync_owner")
            reload_sql(conn)
        conn.execute("set local role sync_reader")
        assert conn.execute(query).fetchall() == before
        assert len(before) == 1
        conn.rollback()
        assert create(conn, "posts")["a"] == ("text", "kept")


def test_a_dump_carries_views_their_indexes_and_their_grants(postgres: Server, clone: str) -> None:
    with connect_sync(clone, name="test") as conn:
        World(conn, repos=1)
        create(conn, "posts", text_lexicon("a"), indexed=["a"], newest_by="indexed_at")
        store(conn, 0, "r", {"a": "x"})
        for step in conn.execute("select statement from sync.index_steps()").fetchall():
            conn.execute("set local role sync_owner")
            conn.execute(step["statement"].replace(" concurrently", "").encode())
        conn.commit()
        source = conn.info.dbname
    with postgres.database() as name:
        dump = subprocess.run(
            [postgres.binaries.folder / "pg_dump", postgres.admin_url(source)],
            check=True,
            capture_output=True,
        )
        subprocess.run(
            [
                postgres.binaries.folder / "psql",
                "-qX",
                "-v",
                "ON_ERROR_STOP=1",
                postgres.admin_url(name),
            ],
            input=dump.stdout,
            check=True,
            capture_output=True,
        )
        upgrade(postgres.service_url(name))
        with connect_sync(postgres.service_url(name), name="test") as conn:
            assert conn.execute("select * from sync.index_steps()").fetchall() == []
            (row,) = conn.execute("select * from sync.list_views()").fetchall()
            assert row["indexes_ready"] == ["a", "indexed_at"]
            assert create(conn, "posts") == {"a": ("text", "kept")}
            conn.execute("set local role sync_reader")
            (row,) = conn.execute("select a from sync_views.posts").fetchall()
            assert row == {"a": "x"}
