"""Connections of the ingest services: opened with a stage, watched over, opened again when lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg

from sync import log
from sync.database import IngestConnection, connect
from sync.errors import DatabaseUnavailable
from sync.firehose import Backoff
from sync.progress import Progress
from sync.roles import INGESTER

IDLE_TRANSACTION_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.2, 5.0
# How long a service that is stopped, or cut off, keeps what it works on from the others.
LEASE_S = 15.0
LANE_IDLE_TRANSACTION_TIMEOUT_S = 10.0  # below the lease
LOCK_POLL_S = 0.2

# The advisory locks of a session that compares repos, and of one that has texts embedded: class and
# keys. What services share of a source, and whose fetches are whose: see sync.share_lanes() and
# sync_priv.fetcher_id().
LOCK_CLASS = 7262
GAPS_LOCK = 0
EMBEDDING_LOCK = -1
_TRY_LOCK = "select pg_try_advisory_lock($1, $2)"
_BEAT = "select 1"
_OPEN_STAGE = "select sync.open_stage()"

_DATABASE_ERRORS = (
    DatabaseUnavailable,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in mid-conversation can end in
    ConnectionError,
    TimeoutError,  # of a statement that has a limit
)

_log = log.get("database")


@asynccontextmanager
async def ingest_session(
    url: str,
    *,
    name: str,
    idle_transaction_timeout_s: float | None = None,
    idle_timeout_s: float | None = None,
) -> AsyncIterator[IngestConnection]:
    """Open a connection as the ingester with its staging tables, and close it in bounded time."""
    conn = await connect(
        url,
        name=f"standpipe {name}",
        role=INGESTER,
        idle_transaction_timeout_s=idle_transaction_timeout_s or IDLE_TRANSACTION_TIMEOUT_S,
        idle_timeout_s=idle_timeout_s,
    )
    try:
        await conn.execute(_OPEN_STAGE)
        yield conn
    finally:
        try:
            await conn.close(timeout=CLOSE_TIMEOUT_S)
        except (OSError, *_DATABASE_ERRORS):
            conn.terminate()


async def keep_working(
    url: str,
    name: str,
    work: Callable[[IngestConnection], Awaitable[None]],
    *,
    progress: Progress,
    idle_timeout_s: float | None = None,
) -> None:
    """Run `work` with a connection; after trouble with the database, start over.

    With `idle_timeout_s` what the session holds is only leased: it ends when it falls silent.
    """
    backoff = Backoff(first_s=RECONNECT_FIRST_S, max_s=RECONNECT_MAX_S)
    while True:
        started_at = time.monotonic()
        try:
            async with ingest_session(url, name=name, idle_timeout_s=idle_timeout_s) as conn:
                progress.is_database_up = True
                # In a task of its own: before Python 3.13 a group whose child fails leaves its
                # task marked as cancelled, and end_if_cancelled() would believe it.
                await asyncio.ensure_future(work(conn))
                return
        except Exception as error:  # only what the database says is kept
            end_if_cancelled()
            if not is_database_error(error):
                raise
            progress.is_database_up = False
            _log.warning("starting over", part=name, reason=reason_of(error))
        if time.monotonic() - started_at > RECONNECT_MAX_S:
            backoff.reset()
        await asyncio.sleep(backoff.next_delay_s())


def end_if_cancelled() -> None:
    """Go on ending when an error hides that this task was cancelled.

    Until Python 3.12 a group whose tasks fail while it is being cancelled raises their errors only.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def leased(url: str, key: int, *, what: str) -> AsyncIterator[None]:
    """Hold a lock around the work of one service in a database; wait until it is free.

    It belongs to a session that the server ends once it says nothing for the lease: so the lock of
    a process that is stopped or cut off falls to another. What that one does meanwhile is fenced
    off by its successor's tokens. Raises a database error in the block when the lock is lost.
    """
    async with leased_session(url, name=f"lock {key}") as conn:
        await _wait_for_lock(conn, key, what=what)
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(_beat(conn))
            yield
            beating.cancel()


@asynccontextmanager
async def leased_session(url: str, *, name: str) -> AsyncIterator[IngestConnection]:
    """Open a session that the server ends, with its locks, once it is silent for the lease."""
    conn = await connect(url, name=f"standpipe {name}", role=INGESTER, idle_timeout_s=LEASE_S)
    try:
        yield conn
    finally:
        try:
            await conn.close(timeout=CLOSE_TIMEOUT_S)
        except (OSError, *_DATABASE_ERRORS):
            conn.terminate()


@asynccontextmanager
async def app_session(url: str, *, name: str) -> AsyncIterator[IngestConnection]:
    """Open a session that calls code of apps; nothing is staged or prepared in it."""
    conn = await connect(url, name=f"standpipe {name}", role=INGESTER, prepares=False)
    try:
        yield conn
    finally:
        try:
            await conn.close(timeout=CLOSE_TIMEOUT_S)
        except (OSError, *_DATABASE_ERRORS):
            conn.terminate()


async def _wait_for_lock(conn: IngestConnection, key: int, *, what: str) -> None:
    is_told = False
    while True:
        if await conn.fetchval(_TRY_LOCK, LOCK_CLASS, key):
            if is_told:
                _log.info("taking over", what=what)
            return
        if not is_told:
            _log.info("standing by: another service does this", what=what)
            is_told = True
        await asyncio.sleep(LOCK_POLL_S)


async def _beat(conn: IngestConnection) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 5)
        await conn.execute(_BEAT, timeout=LEASE_S)


def is_database_error(
    error: BaseException, *, beside: tuple[type[BaseException], ...] = ()
) -> bool:
    """Tell whether everything that went wrong came from the database or the way to it.

    Errors `beside` these may have happened, too.
    """
    return all(isinstance(leaf, (*_DATABASE_ERRORS, *beside)) for leaf in leaves_of(error))


def first_of(error: BaseException) -> BaseException:
    """Return the first error inside a group, or the error itself."""
    return next(leaves_of(error))


def reason_of(error: BaseException) -> str:
    """Return what the first error inside a group says, or its name where it says nothing."""
    first = first_of(error)
    return str(first) or type(first).__name__


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error
