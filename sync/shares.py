"""A service's share of the lanes of a source: what it holds, in a session that is only leased.

Everything is said on one connection, which also holds the locks: when the server ends it, since
the process was stopped or cut off, the lanes are free for others, and no token can be drawn here
any more. Tokens fence off what such a process still has under way.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sync.database import IngestConnection
from sync.problems import storable
from sync.sessions import LEASE_S, leased_session
from sync.staging import LaneClaim

_SHARE = "select lanes, lane, is_surplus from sync.share_lanes($1, $2)"
_CLAIM = "select token, seq from sync.claim_lane($1, $2)"
_TROUBLE = "select sync.note_trouble($1, $2)"
_LEAVE = "select sync.leave_lane($1, $2)"


@dataclass(frozen=True, slots=True)
class Share:
    """How many lanes there are, which of them are ours, and which of ours others are to have."""

    count: int
    ours: frozenset[int]
    surplus: frozenset[int]


class SourceShares:
    """Take, start and give up lanes of one source."""

    def __init__(self, conn: IngestConnection, source_id: int, *, wanted: int) -> None:
        self._conn = conn
        self._source_id = source_id
        self._wanted = wanted
        self._count = 0  # of lanes, as the database had it the last time we looked
        self._lock = asyncio.Lock()  # of the connection, which does one thing at a time

    async def look(self) -> Share:
        """Take what is fair and free; raises a database error when the locks are lost."""
        async with self._lock:
            rows = await self._conn.fetch(_SHARE, self._source_id, self._wanted, timeout=LEASE_S)
            self._count = rows[0]["lanes"]
        return Share(
            self._count,
            frozenset(row["lane"] for row in rows if row["lane"] is not None),
            frozenset(row["lane"] for row in rows if row["is_surplus"]),
        )

    async def claim(self, lane: int, *, of: int) -> tuple[LaneClaim, int | None] | None:
        """Draw a token for one of our lanes; returns it with the durable cursor.

        None when there are not `of` lanes any more: then this one has other repos.
        """
        async with self._lock:
            if of != self._count:
                return None
            [row] = await self._conn.fetch(_CLAIM, self._source_id, lane, timeout=LEASE_S)
        return LaneClaim(self._source_id, lane, row["token"]), row["seq"]

    async def note_trouble(self, trouble: str) -> None:
        """Say why the source cannot be read right now; nothing when it can."""
        async with self._lock:
            await self._conn.execute(
                _TROUBLE, self._source_id, storable(trouble) or None, timeout=LEASE_S
            )

    async def leave(self, lane: int) -> None:
        """Give a lane up that does not run any more."""
        async with self._lock:
            await self._conn.execute(_LEAVE, self._source_id, lane, timeout=LEASE_S)


@asynccontextmanager
async def shared_source(url: str, source_id: int, *, wanted: int) -> AsyncIterator[SourceShares]:
    """Take part in reading a source until the end of the block."""
    async with leased_session(url, name=f"lanes of {source_id}") as conn:
        yield SourceShares(conn, source_id, wanted=wanted)
