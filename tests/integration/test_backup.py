"""Dumps of all kinds, restored beside, over and away from their database; parts of a dump."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event as Flag
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from sync.database import connect_sync
from sync.errors import SchemaError
from sync.schema import upgrade
from tests.acceptance.commands import wait_until
from tests.acceptance.restoring import blocks, put, shell_environment
from tests.golden import dump_schema
from tests.postgres import Server
from tests.sql.driver import POST, Driver, did
from tests.sql.projecting import App, app_roles

Session = psycopg.Connection[DictRow]
DUMP = blocks("Dump")[0]
RESTORE = blocks("Restore")[1]
(RESTORE_IN_TWO,) = blocks("Restore views in schemas of yours")
DUMP_WITH_SLOT, SUBSCRIBE = blocks("Dump and follow")
URL = "postgresql://standpipe:PASSWORD@HOST:5432"
EPOCH = "select log_epoch from sync_priv.log_state"
LOG = "select * from sync.changes order by change_id"
RECORDS = "select * from sync.stored_records order by repo_id, collection_id, rkey"
READ = "select position, kind, rkey from sync.read_changes('app')"


@pytest.fixture
def source(clone: str) -> Iterator[Driver]:
    """Play a service in the database that is dumped: two repos, a reader that is not level."""
    with connect_sync(clone, name="test", autocommit=True) as conn:
        driver = Driver(conn)
        driver.load(1, {"a": "x", "b": "y"}, at=10, data="t10")
        conn.execute("select sync.create_consumer('app')")
        read_all(conn)
        driver.load(2, {"c": "z"}, at=10, data="t10")
        yield driver


def shell(server: Server, script: str, folder: Path, **environment: str) -> str:
    """Run commands with the programs of a server; they must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=shell_environment(server.binaries, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def dump(server: Server, url: str, folder: Path, *options: str) -> None:
    """Dump as the page says, with more options."""
    script = DUMP.text.replace("pg_dump", " ".join(["pg_dump", *options]))
    shell(server, script, folder, STANDPIPE_DATABASE_URL=url)


def restore(server: Server, folder: Path, database: str, *, in_two: bool = False) -> str:
    """Restore as the page says into an empty database; return its URL."""
    url = server.service_url(database)
    script = put(RESTORE, **{f"{URL}/restored": url})
    if in_two:
        at_once = 'pg_restore --exit-on-error --dbname="$STANDPIPE_DATABASE_URL" app.dump\n'
        assert at_once in script
        script = script.replace(at_once, RESTORE_IN_TWO.text)
    shell(server, script, folder)
    return url


def read_all(conn: Session) -> list[DictRow]:
    """Read to the end, one transaction a call."""
    rows: list[DictRow] = []
    while batch := conn.execute(READ).fetchall():
        rows += batch
    return rows


def value(url: str, query: str) -> Any:
    """Return the only column of the only row."""
    with connect_sync(url, name="test", autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row and next(iter(row.values()))


def test_a_restored_database_is_the_same_one(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    schema = dump_schema(source.conn)
    dump(postgres, clone, tmp_path)
    with postgres.database() as name:
        restored = restore(postgres, tmp_path, name)
        with connect_sync(restored, name="test", autocommit=True) as conn:
            for query in (LOG, RECORDS, "select * from sync.repos order by repo_id"):
                assert conn.execute(query).fetchall() == source.rows(query)
            assert [row["rkey"] for row in read_all(conn)] == ["c"]
            assert dump_schema(conn) == schema
        assert value(restored, EPOCH) > value(clone, EPOCH)


def test_a_dump_put_back_over_its_own_database_is_noticed(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    """System, timeline and database are what they were; what was numbered meanwhile is gone.

    pg_restore cannot drop a partition's key, says so, and goes on: the table itself it can.
    """
    dump(postgres, clone, tmp_path)
    source.load(3, {"d": "lost"}, at=10, data="t10")
    lost, epoch = source.position(), value(clone, EPOCH)
    source.conn.close()
    script = 'pg_restore --clean --if-exists --dbname="$URL" app.dump || true; standpipe upgrade'
    shell(postgres, script, tmp_path, URL=clone, STANDPIPE_DATABASE_URL=clone)
    with connect_sync(clone, name="test", autocommit=True) as conn:
        again = Driver(conn)
        again.load(4, {"e": "new"}, at=10, data="t10")
        assert value(clone, EPOCH) > epoch
        assert not again.rows("select from sync.changes where change_id = %s", lost)
        assert [row["rkey"] for row in read_all(conn)] == ["c", "e"]


def test_the_log_may_be_left_out_and_its_readers_learn_of_it(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    dump(postgres, clone, tmp_path, "--exclude-table-data='sync_priv.changes_*'")
    with (
        postgres.database() as name,
        connect_sync(restore(postgres, tmp_path, name), name="test", autocommit=True) as conn,
    ):
        with pytest.raises(psycopg.Error) as refusal:
            conn.execute(READ)
        assert refusal.value.sqlstate == "SY301"
        conn.execute("select sync.replay('app')")
        told = [row["rkey"] for row in read_all(conn) if row["kind"] == "create"]
        assert sorted(told) == ["a", "b", "c"]


def test_a_projection_goes_on_in_a_restored_database(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    with app_roles(postgres):
        app = App(source.conn)
        app.make("posts")
        app.settle("posts")
        source.load(3, {"d": "later"}, at=10, data="t10")
        dump(postgres, clone, tmp_path)
        with postgres.database() as name:
            restored = restore(postgres, tmp_path, name)
            with connect_sync(restored, name="test", autocommit=True) as conn:
                again = App(conn, is_new=False)
                assert len(again.kept("posts")) == 3
                again.settle("posts")
                Driver(conn).load(4, {"e": "new"}, at=10, data="t10")
                again.settle("posts")
                assert {key[2] for key in again.kept("posts")} == set("abcde")
                assert again.call("rebuild", "posts")["updated"] == 0
        app.db.execute("drop schema app cascade")


def test_views_in_schemas_of_apps_are_restored_by_the_login_of_the_service(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    make_view = "select from sync.create_view('\"my app\".posts', %s, null, %s)"
    source.conn.execute('create schema "my app"')
    source.conn.execute('grant usage, create on schema "my app" to sync_owner')
    source.conn.execute(make_view, [POST, Jsonb({"text": "value ->> 'text'"})])
    dump(postgres, clone, tmp_path)
    with postgres.database() as name:
        restored = restore(postgres, tmp_path, name, in_two=True)
        count = 'select count(*) from "my app".posts'
        assert value(restored, count) == value(clone, count) == 3
        with connect_sync(restored, name="test", autocommit=True) as conn:
            conn.execute("select from sync.drop_view('\"my app\".posts')")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--exclude-table-data=sync.heads", "without the contents of sync.heads"),
        ("--exclude-table-data=sync_priv.consumer_shards", "consumer_shards"),
        ("--exclude-schema=sync_priv", "failed"),
        ("--schema=sync", "failed"),
    ],
)
def test_part_of_a_dump_is_refused_in_one_sentence(
    postgres: Server, source: Driver, clone: str, tmp_path: Path, options: str, sentence: str
) -> None:
    dump(postgres, clone, tmp_path, options)
    with postgres.database() as name:
        url = postgres.service_url(name)
        script = 'standpipe upgrade --roles-only; pg_restore --dbname="$URL" app.dump || true'
        shell(postgres, script, tmp_path, URL=url, STANDPIPE_DATABASE_URL=url)
        with pytest.raises(SchemaError, match=sentence):
            upgrade(url)


def test_a_dump_restored_without_owners_is_refused_in_one_sentence(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    dump(postgres, clone, tmp_path)
    with postgres.database() as name:
        url = postgres.service_url(name)
        script = 'standpipe upgrade --roles-only; pg_restore --no-owner --dbname="$URL" app.dump'
        shell(postgres, script, tmp_path, URL=url, STANDPIPE_DATABASE_URL=url)
        with pytest.raises(SchemaError, match="restored without its owners"):
            upgrade(url)


# A dump and what follows ------------------------------------------------------------------------

WRITE = """
    with put as (
      insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
      select r.repo_id, 1, %(rkey)s, decode(repeat('00', 36), 'hex'), '3kaaaaaaaaaaa', '{}'
        from sync.repos r where r.did = any (%(dids)s)
    )
    delete from sync.stored_records s where s.rkey = %(old)s
"""


@contextmanager
def live_writer(url: str, dids: list[str]) -> Iterator[Callable[[], int]]:
    """Write records in small commits all the time; yields how many commits there were so far."""
    stop, done = Flag(), count()
    last = [0]

    def write() -> None:
        with connect_sync(url, name="writer", autocommit=True) as conn:
            while not stop.is_set():
                n = next(done)
                conn.execute(WRITE.encode(), {"rkey": f"w{n}", "old": f"w{n - 3}", "dids": dids})
                last[0] = n

    with ThreadPoolExecutor(max_workers=1) as pool:
        writing = pool.submit(write)
        try:
            yield lambda: last[0]
        finally:
            stop.set()
            writing.result()


UNSUBSCRIBE = (
    "alter subscription follower disable",
    "alter subscription follower set (slot_name = none)",
    "drop subscription follower",
)


def test_a_dump_and_its_slot_have_neither_a_gap_nor_an_overlap(
    postgres: Server, source: Driver, clone: str, tmp_path: Path
) -> None:
    """The key of the log refuses what comes twice, and the copy would never be level."""
    instead = {f"{URL}/app": clone}
    with postgres.database() as name, subscriber(postgres, name) as copy:
        with live_writer(clone, [did(1), did(2)]) as commits:
            wait_until(lambda: commits() > 50, "the writer writes")
            shell(postgres, DUMP_WITH_SLOT.text, tmp_path, STANDPIPE_DATABASE_URL=clone)
            dumped = commits()
            restore(postgres, tmp_path, name)
            wait_until(lambda: commits() > dumped, "the writer goes on")
            assert len(copy.execute(LOG).fetchall()) < source.value(
                "select count(*) from sync.changes"
            )
            copy.execute(put(SUBSCRIBE, **instead).encode())
            wait_until(lambda: commits() > dumped + 50, "the writer goes on")
        wait_until(lambda: copy.execute(LOG).fetchall() == source.rows(LOG), "the logs are equal")
        wait_until(lambda: copy.execute(RECORDS).fetchall() == source.rows(RECORDS), "records, too")
        assert source.value("select count(*) > 400 from sync.changes")


@contextmanager
def subscriber(server: Server, database: str) -> Iterator[Session]:
    """Open a superuser's connection to a copy; at the end its subscription and slot are gone."""
    with psycopg.connect(server.admin_url(database), row_factory=dict_row, autocommit=True) as conn:
        try:
            yield conn
        finally:
            if conn.execute("select 1 from pg_subscription where subname = 'follower'").fetchone():
                for statement in UNSUBSCRIBE:
                    conn.execute(statement)
            wait_until(
                lambda: (
                    conn.execute(
                        "select 1 from pg_replication_slots where slot_name = 'follower' and active"
                    ).fetchone()
                    is None
                ),
                "nobody reads the slot",
            )
            conn.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where slot_name = 'follower'"
            )
