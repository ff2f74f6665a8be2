"""Two servers, one that publishes and one that subscribes, set up by the commands of the how-to."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from sync.database import connect_sync
from sync.embedded import EmbeddedPostgres
from sync.errors import DatabaseUnavailable
from sync.schema import upgrade
from tests.postgres import Server, chosen_binaries, running_server
from tests.sql.driver import POST, cid, did, rev

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "replicate.md"
EXAMPLES = ROOT / "docs" / "examples" / "replication"
TIMEOUT_S = 120.0
POLL_S = 0.05
REPOS = 4

# What stands in the page for the reader's own.
PUBLISHER = "postgresql://copier:PASSWORD@HOST:5432/app"
SUBSCRIBER = "postgresql://postgres:PASSWORD@ELSEWHERE:5432/copy"

Session = psycopg.Connection[DictRow]


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return the blocks of a section of the page: whom each is for, and its text."""
    page = PAGE.read_text(encoding="utf-8")
    section = re.search(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert section is not None, f"{PAGE.name} has no section {heading!r}"
    fences = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    return [(whom or kind, text) for kind, whom, text in fences if kind != "text"]


def until(is_so: Callable[[], object], what: str) -> None:
    """Look again and again whether something has come about."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S:.0f} s: {what}"
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server that a test may kill."""

    server: Server
    folder: Path

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, as a loss of power would end it."""
        pid = EmbeddedPostgres(self.folder).postmaster_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def revive(self) -> None:
        """Start it again on its port."""
        EmbeddedPostgres(self.folder, binaries=self.server.binaries).revive()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a server that may be killed: what it has shown to anybody, it keeps."""
    with running_server(folder, chosen_binaries()) as server:
        server.administer(
            # Else a first copy may contain what the publisher loses with its last WAL.
            sql.SQL("alter system set synchronous_commit = on"),
            # How soon an interrupted subscription is tried again.
            sql.SQL("alter system set wal_retrieve_retry_interval = '100ms'"),
            sql.SQL("select pg_reload_conf()"),
        )
        yield Cluster(server, folder)


@dataclass(frozen=True, slots=True)
class Pair:
    """A database with Standpipe and one that copies it."""

    publisher: Cluster
    subscriber: Cluster
    source: str
    copy: str

    @property
    def source_url(self) -> str:
        """Return the URL of the service's login."""
        return self.publisher.server.service_url(self.source)

    @property
    def copier_url(self) -> str:
        """Return the URL of the login that the page makes for a subscriber."""
        return self.source_url.replace(
            self.source_url.split("//")[1].split("@")[0], "copier:choose%20one"
        )

    @property
    def copy_url(self) -> str:
        """Return the URL of the subscriber's superuser."""
        return self.subscriber.server.admin_url(self.copy)

    def run(self, heading: str) -> None:
        """Run the blocks of a section, each where the page says."""
        for whom, text in blocks(heading):
            self.run_block(whom, text)

    def run_block(self, whom: str, text: str) -> None:
        """Run one block."""
        text = text.replace(PUBLISHER, self.copier_url).replace(SUBSCRIBER, self.copy_url)
        if whom == "sh":
            self._shell(f"export PUBLISHER={self.copier_url} COPY={self.copy_url}\n{text}", "")
        else:
            urls = {"subscriber": self.copy_url, "administrator": self.admin_url}
            self._shell(f"psql --set=ON_ERROR_STOP=1 --quiet {urls[whom]}", text)

    @property
    def admin_url(self) -> str:
        """Return the URL of the publisher's superuser."""
        return self.publisher.server.admin_url(self.source)

    def _shell(self, script: str, text: str) -> None:
        programs = self.publisher.server.binaries.folder
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environ |= {"PATH": f"{programs}:{environ['PATH']}", "PSQLRC": os.devnull}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            input=text,
            env=environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{text}\n{done.stdout}{done.stderr}"

    def on_source(self, *, role: str | None = None) -> Session:
        """Connect to the publisher as the service."""
        return connect_sync(self.source_url, name="test", role=role, autocommit=True)

    def on_copy(self) -> Session:
        """Connect to the subscriber."""
        return psycopg.connect(self.copy_url, row_factory=dict_row, autocommit=True)


@contextmanager
def pair(publisher: Cluster, subscriber: Cluster) -> Iterator[Pair]:
    """Make both databases; drop them with subscriptions and slots."""
    with publisher.server.database() as source, subscriber.server.database() as copy:
        both = Pair(publisher, subscriber, source, copy)
        upgrade(both.source_url)
        try:
            yield both
        finally:
            _end_subscriptions(both)


def _end_subscriptions(both: Pair) -> None:
    with both.on_copy() as conn:
        for row in conn.execute(
            "select quote_ident(subname) as name from pg_subscription s join "
            "pg_database d on d.oid = s.subdbid and d.datname = "
            "current_database()"
        ).fetchall():
            for action in ("disable", "set (slot_name = none)"):
                conn.execute(f"alter subscription {row['name']} {action}".encode())
            conn.execute(f"drop subscription {row['name']}".encode())
    with psycopg.connect(both.admin_url, autocommit=True) as admin:
        query = """
            select count(pg_terminate_backend(active_pid)) filter (where active),
                   count(pg_drop_replication_slot(slot_name)) filter (where not active)
              from pg_replication_slots where database = current_database()
        """
        until(lambda: _is_zero(admin.execute(query)), "the slots of the test are gone")


def _is_zero(cursor: Any) -> bool:
    return all(value == 0 for value in cursor.fetchone())


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    """Return a publisher, prepared as the page says, and a subscriber."""
    folder = tmp_path_factory.mktemp("replication")
    with (
        cluster(folder / "publisher") as publisher,
        cluster(folder / "subscriber") as subscriber,
    ):
        with pair(publisher, subscriber) as first:
            first.run("Prepare the publisher")
        yield publisher, subscriber


@pytest.fixture
def both(clusters: tuple[Cluster, Cluster]) -> Iterator[Pair]:
    with pair(*clusters) as made:
        yield made


def large(seed: int) -> str:
    """Return a text that stays large when it is compressed."""
    return random.Random(seed).randbytes(8000).hex()


class Writer(threading.Thread):
    """Writes by hand, as an operator would, whatever happens to the server."""

    def __init__(self, both: Pair, seed: int) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self._both = both
        self._random = random.Random(seed)
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                with self._both.on_source() as conn:
                    while not self._is_over.is_set():
                        self._write(conn)
                        self.done += 1
            except (psycopg.OperationalError, DatabaseUnavailable):
                continue  # the server is down, or not up yet

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def _write(self, conn: Session) -> None:
        number = self._random.randrange(REPOS)
        key = [self._random.choice("abcdefgh"), did(number)]
        match self._random.randrange(10):
            case 0:
                call = self._random.choice(["take_down_repos", "restore_repos"])
                conn.execute(f"select sync.{call}(array[%s])".encode(), [did(number)])
            case 1:
                call = self._random.choice(["untrack_repos", "track_repos"])
                conn.execute(f"select sync.{call}(array[%s])".encode(), [did(number)])
                conn.execute("select sync.maintain()")
            case 2 | 3:
                conn.execute(
                    "delete from sync.stored_records s using sync.repos r"
                    " where s.repo_id = r.repo_id and s.rkey = %s and r.did = %s",
                    key,
                )
            case _:
                text = large(self._random.randrange(1000)) if number == 0 else str(self.done)
                conn.execute(
                    """
                    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
                    select r.repo_id, c.collection_id, %s, %s, %s, %s
                      from sync.repos r, sync.collections c where r.did = %s and c.nsid = %s
                        on conflict (repo_id, collection_id, rkey) do update
                       set cid = excluded.cid, value = excluded.value
                    """,
                    [key[0], cid(text), rev(1), json.dumps({"text": text}), key[1], POST],
                )


@contextmanager
def writing(both: Pair, seed: int) -> Iterator[Writer]:
    with both.on_source() as conn:
        conn.execute("select sync.track_repos(%s)", [[did(n) for n in range(REPOS)]])
        conn.execute("insert into sync.collections (nsid) values (%s)", [POST])
    writer = Writer(both, seed)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()
