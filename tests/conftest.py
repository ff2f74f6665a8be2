"""Fixtures for every test that needs a database.

    postgres   the session's server (`.admin_url(database)`, `.service_url(database)`)
    pg_url     the URL of its superuser
    db         a psycopg connection whose work is rolled back after the test; rows are dicts
    clock      sets the time that the functions of `db` see
    pgvector   skips the test where there is none
    clone      the URL of a database of its own, for tests that commit or connect twice
    ingest     opens asyncpg connections to `clone` as sync_ingester

A test works as the service's login, who is no superuser.
"""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import hypothesis
import psycopg
import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from psycopg.rows import DictRow, dict_row

from sync.database import IngestConnection, connect, connect_sync
from sync.roles import INGESTER
from tests.postgres import BINARIES_VARIABLE, TEMPLATE, Server, chosen_binaries, running_server

# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that;
# the tests that send it to them would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Ingest = Callable[..., Awaitable[IngestConnection]]


# The checkout may belong to another user; and a busy machine is no failure.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / f"standpipe-hypothesis-{os.getuid()}")
hypothesis.settings.register_profile(
    "standpipe", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("standpipe")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return the session's server, with an upgraded template database."""
    folder = Path(tmp_path_factory.mktemp("postgres"))
    with running_server(folder / "data", chosen_binaries()) as server:
        server.make_template()
        yield server


@pytest.fixture(scope="session")
def pg_url(postgres: Server) -> str:
    """Return the URL of the session server's superuser."""
    return postgres.admin_url()


@pytest.fixture(scope="session")
def pgvector(postgres: Server) -> None:
    """Skip a test of searches in a PostgreSQL that was chosen and has no pgvector."""
    available = "select from pg_available_extensions where name = 'vector'"
    with psycopg.connect(postgres.admin_url()) as conn:
        is_there = conn.execute(available).fetchone() is not None
    if BINARIES_VARIABLE in os.environ and not is_there:
        pytest.skip(f"the PostgreSQL of {BINARIES_VARIABLE} has no pgvector")


@pytest.fixture(scope="session")
def shared_url(postgres: Server) -> Iterator[str]:
    """Return the URL of the database that `db` connects to: nothing is ever committed there."""
    with postgres.database(template=TEMPLATE) as name:
        yield postgres.service_url(name)


@pytest.fixture
def db(shared_url: str) -> Iterator[psycopg.Connection[DictRow]]:
    """Return a connection whose transaction is rolled back."""
    conn = psycopg.connect(shared_url, row_factory=dict_row, application_name="test")
    try:
        yield conn
    finally:
        conn.rollback()
        conn.close()


@pytest.fixture
def clock(db: psycopg.Connection[DictRow]) -> Callable[[str], None]:
    """Return a function that sets the time `db` sees until the end of the test."""

    def set_clock(now: str) -> None:
        db.execute("select set_config('sync.now', %s, true)", [now])

    return set_clock


@pytest.fixture
def clone(postgres: Server) -> Iterator[str]:
    """Return the service's URL of a fresh copy of the template, dropped after the test."""
    with postgres.database(template=TEMPLATE) as name:
        yield postgres.service_url(name)


@pytest.fixture
def empty_database(postgres: Server) -> Iterator[str]:
    """Return the service's URL of a database that Standpipe never saw."""
    with postgres.database() as name:
        yield postgres.service_url(name)


@pytest.fixture
async def ingest(clone: str) -> AsyncIterator[Ingest]:
    """Return a function that opens connections to `clone`; they close after the test."""
    async with AsyncExitStack() as stack:

        async def open_connection(*, role: str | None = INGESTER) -> IngestConnection:
            conn = await connect(clone, name="test ingest", role=role, timeout_s=60)
            stack.push_async_callback(conn.close)
            return conn

        yield open_connection


@pytest.fixture
def session(clone: str) -> Iterator[Callable[..., psycopg.Connection[DictRow]]]:
    """Return a function that opens psycopg connections to `clone`; they close after the test."""
    opened: list[psycopg.Connection[DictRow]] = []

    def open_session(
        *, role: str | None = None, autocommit: bool = True
    ) -> psycopg.Connection[DictRow]:
        conn = connect_sync(
            clone, name="test session", role=role, autocommit=autocommit, timeout_s=60
        )
        opened.append(conn)
        return conn

    yield open_session
    for conn in opened:
        conn.close()
