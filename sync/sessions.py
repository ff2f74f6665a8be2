"""Connections of the ingest services: opened with a stage, watched over, opened again when lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg

from sync import log
from sync.database import IngestConnection, connect
from sync.errors import DatabaseUnavailable, StandpipeError
from sync.firehose import Backoff
from sync.progress import Progress
from sync.roles import INGESTER

IDLE_TRANSACTION_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.2, 5.0
LOCK_POLL_S = 0.1

# Advisory locks of a session: class, then 0 for the fetches and source_id for its lane.
LOCK_CLASS = 7262
FETCH_LOCK = 0
_TRY_LOCK = "select pg_try_advisory_lock($1, $2)"
_OPEN_STAGE = "select sync.open_stage()"

_DATABASE_ERRORS = (
    DatabaseUnavailable,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection cut in mid-conversation can end in
    ConnectionError,
)

_log = log.get("database")


class ServiceBusy(StandpipeError):
    """Another service already does this work in this database."""


@asynccontextmanager
async def ingest_session(url: str, *, name: str) -> AsyncIterator[IngestConnection]:
    """Open a connection as the ingester with its staging tables, and close it in bounded time."""
    conn = await connect(
        url,
        name=f"standpipe {name}",
        role=INGESTER,
        idle_transaction_timeout_s=IDLE_TRANSACTION_TIMEOUT_S,
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
) -> None:
    """Run `work` with a connection; after trouble with the database, start over."""
    backoff = Backoff(first_s=RECONNECT_FIRST_S, max_s=RECONNECT_MAX_S)
    while True:
        started_at = time.monotonic()
        try:
            async with ingest_session(url, name=name) as conn:
                progress.is_database_up = True
                await work(conn)
                return
        except Exception as error:  # only what the database says is kept
            end_if_cancelled()
            if not is_database_error(error):
                raise
            progress.is_database_up = False
            _log.warning("starting over", part=name, reason=str(first_of(error)))
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


async def take_lock(conn: IngestConnection, key: int, *, wait_s: float, what: str) -> None:
    """Take a lock that lives as long as the connection, or raise `ServiceBusy`.

    The wait is for a predecessor whose connection the server has not given up yet.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while not await conn.fetchval(_TRY_LOCK, LOCK_CLASS, key):
        if asyncio.get_running_loop().time() >= deadline:
            raise ServiceBusy(
                f"Another standpipe service {what} in this database: "
                "stop it first, or use another database."
            )
        await asyncio.sleep(LOCK_POLL_S)


def is_database_error(error: BaseException) -> bool:
    """Tell whether everything that went wrong came from the database or the way to it."""
    return all(isinstance(leaf, _DATABASE_ERRORS) for leaf in leaves_of(error))


def first_of(error: BaseException) -> BaseException:
    """Return the first error inside a group, or the error itself."""
    return next(leaves_of(error))


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error
