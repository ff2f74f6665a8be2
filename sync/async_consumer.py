"""`sync.consumer` for asyncio: the same consumer, awaited.

    async def apply(conn, changes):
        for change in changes:
            await conn.execute(...)

    await AsyncConsumer("posts", "postgresql://app@localhost/app").run(apply)

Cancelling `run` rolls the batch at hand back; stop() lets it commit first.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import class_row, scalar_row

from sync.changes import Change
from sync.consumer import CREATE, DROP, GLANCE_S, IS_AT_REST, READ, REPLAY, Reader, as_list
from sync.database import login_errors, refusals
from sync.errors import DatabaseUnavailable

AsyncConnection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
AsyncApply: TypeAlias = Callable[[AsyncConnection, list[Change]], Awaitable[object]]


class AsyncConsumer(Reader):
    """A worker of a consumer of the change log; see `sync.consumer.Consumer`."""

    async def run(self, apply: AsyncApply, *, follow: bool = True) -> None:
        """Await `apply` with every batch, in its transaction; as `Consumer.run` does."""
        self.note_success()
        conn: AsyncConnection | None = await self._connect()
        try:
            while not self.is_stopped:
                try:
                    if conn is None or conn.closed:
                        conn = await self._connect()
                    is_at_rest = await self._turn(conn, apply)
                    self.note_success()
                    if is_at_rest and not follow:
                        return
                    await self._wait(conn, self.poll_s if is_at_rest else 0)
                except (psycopg.Error, DatabaseUnavailable) as error:
                    is_lost = conn is None or conn.closed
                    if not (pause := self.pause_after(error, is_lost=is_lost)):
                        raise
                    await asyncio.sleep(pause)
        finally:
            self.is_stopped = False
            if conn is not None:
                await conn.close()

    async def create(
        self,
        *,
        collections: Sequence[str] | None = None,
        dids: Sequence[str] | None = None,
        start: str = "beginning",
        shards: int = 1,
    ) -> None:
        """Make the consumer; as `Consumer.create` does."""
        await self._call(CREATE, as_list(collections), as_list(dids), start, shards)

    async def replay(
        self, *, dids: Sequence[str] | None = None, collections: Sequence[str] | None = None
    ) -> None:
        """Have it delivered again; as `Consumer.replay` does."""
        await self._call(REPLAY, as_list(dids), as_list(collections))

    async def drop(self) -> None:
        """Forget the consumer; as `Consumer.drop` does."""
        await self._call(DROP)

    async def _connect(self) -> AsyncConnection:
        with login_errors(self.url):
            conn = await psycopg.AsyncConnection.connect(self.url, **self.settings())
        await conn.execute("listen sync_changes")
        return conn

    async def _turn(self, conn: AsyncConnection, apply: AsyncApply) -> bool:
        """Read and apply one batch; tell whether nothing is left for now."""
        with refusals():
            async with conn.transaction(), conn.cursor(row_factory=class_row(Change)) as cursor:
                await cursor.execute(READ, [self.name, self.max_changes, self.shard])
                if changes := await cursor.fetchall():
                    try:
                        await apply(conn, changes)
                    except psycopg.Rollback as error:
                        self.refuse_rollback(error)
                    self.check_alive(conn)
        if changes:
            return False
        async with conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(IS_AT_REST, [self.name, self.shard])
            return await cursor.fetchone() is not False

    async def _wait(self, conn: AsyncConnection, seconds: float) -> None:
        """Wait for a notification; those that came before the last reading are dropped."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            told = conn.notifies(timeout=min(left, GLANCE_S), stop_after=1)
            woken = [each async for each in told]
            if woken or self.is_stopped or not left:
                return

    async def _call(self, query: str, *arguments: object) -> None:
        with login_errors(self.url):
            conn = await psycopg.AsyncConnection.connect(self.url, **self.settings())
        with refusals():
            async with conn:
                await conn.execute(query, [self.name, *arguments])
