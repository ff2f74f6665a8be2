"""Keep the tables of apps: call `sync.run_projection()` for each of them after every change.

The functions it calls are the apps' own, so each projection has a connection for itself: one that
sleeps, or waits for a lock of its own, keeps nobody else waiting, the ingest least of all. Nothing
is prepared on such a connection and whatever app code leaves there is thrown away before the next
call: a setting, a temporary table or a prepared statement would run with our rights.

A projection that fails for good stops alone: SQL says so, and nothing is raised here. Any other
error is shown with it, and the batch is tried again.
"""

import asyncio
import time

from sync import log
from sync.database import IngestConnection
from sync.firehose import Backoff
from sync.roles import INGESTER
from sync.sessions import app_session, end_if_cancelled, is_database_error, reason_of
from sync.wakes import wait_for

CHANGES_CHANNEL = "sync_changes"
MAX_CHANGES = 1_000
# Connections at a time; where there are more projections, each gives its own back when it is at
# rest, and after a turn, as one under steady traffic may never be.
AT_ONCE = 16
TURN_S = 1.0
LOOK_EVERY_S = 5.0
# So that a busy log is followed in batches, not change by change.
GATHER_S = 0.02
BUSY_PAUSE_S = 0.2
RETRY_FIRST_S, RETRY_MAX_S = 0.2, 30.0

_RUNNING = "select * from sync.running_projections()"
_RUN = "select sync.run_projection($1, $2)"
_IS_AT_REST = "select s.is_at_rest from sync.projection_status s where s.name = $1"
# A projection that was dropped, and whose task is about to be.
_IS_GONE = "SY501"
_NOTE = "select sync.note_projection_error($1, $2)"
# Goes as it is, without a parameter; nothing in it is looked up by way of a search path.
_FORGET = (
    f"reset all; set role {INGESTER}; close all; unlisten *; deallocate all; discard temp;"
    " discard sequences; select pg_catalog.pg_advisory_unlock_all()"
)

_log = log.get("projections")


class Projections:
    """One task for each projection that is to run."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._look = asyncio.Event()

    async def run(self, conn: IngestConnection) -> None:
        """Run every projection until cancelled; `conn` listens, and sees what comes and goes."""
        await conn.add_listener(CHANGES_CHANNEL, self._wake_all)
        async with asyncio.TaskGroup() as group:
            while True:
                self._look.clear()
                names = {str(row[0]) for row in await conn.fetch(_RUNNING)}
                for name in names - self._tasks.keys():
                    self._wakes[name] = asyncio.Event()
                    self._tasks[name] = group.create_task(self._keep(name), name=name)
                for name in self._tasks.keys() - names:
                    self._tasks.pop(name).cancel()
                    del self._wakes[name]
                await wait_for(self._look, timeout_s=LOOK_EVERY_S)
                await asyncio.sleep(GATHER_S)

    def _wake_all(self, *_: object) -> None:
        self._look.set()
        for wake in self._wakes.values():
            wake.set()

    async def _keep(self, name: str) -> None:
        """Follow the log for one projection, with a connection while there is one to have."""
        wake = self._wakes[name]
        backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S)
        while True:
            error: Exception | None = None
            async with self._slots:
                try:
                    async with app_session(self._url, name="projection") as conn:
                        await self._follow(conn, name, wake, backoff)
                except Exception as caught:  # only what the database says is kept
                    end_if_cancelled()
                    if not is_database_error(caught):
                        raise
                    error = caught
            if error is None or getattr(error, "sqlstate", None) == _IS_GONE:
                await wait_for(wake, timeout_s=LOOK_EVERY_S)
                continue
            _log.warning("a projection is tried again", projection=name, reason=reason_of(error))
            await self._note(name, reason_of(error))
            await asyncio.sleep(backoff.next_delay_s())

    async def _follow(
        self, conn: IngestConnection, name: str, wake: asyncio.Event, backoff: Backoff
    ) -> None:
        """Apply batch after batch; returns when somebody may wait for the connection.

        That is at rest, or after a turn: then it is awake, and comes again in its turn.
        """
        turn_ends = time.monotonic() + TURN_S
        while True:
            wake.clear()
            applied = await conn.fetchval(_RUN, name, MAX_CHANGES)
            await conn.execute(_FORGET)
            backoff.reset()
            if len(self._tasks) > AT_ONCE and time.monotonic() > turn_ends:
                wake.set()
                return
            if applied:
                continue
            if not await conn.fetchval(_IS_AT_REST, name):
                await asyncio.sleep(BUSY_PAUSE_S)  # somebody else is at it, or much is skipped
                continue
            if len(self._tasks) > AT_ONCE:
                return
            await wait_for(wake, timeout_s=LOOK_EVERY_S)
            await asyncio.sleep(GATHER_S)

    async def _note(self, name: str, reason: str) -> None:
        """Show an error with the projection, where the database can be reached."""
        try:
            async with app_session(self._url, name="projection") as conn:
                await conn.execute(_NOTE, name, reason)
        except Exception as error:  # it is in our log, too
            end_if_cancelled()
            if not is_database_error(error):
                raise
