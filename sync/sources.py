"""Run a reader and a lane for every enabled source, and start them again when they fall.

A source's connection holds a lock for as long as it lives, so that of two services only one
reads it; the fencing token protects against one that was only asleep.
"""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sync import log
from sync.applier import LaneFenced
from sync.config import Settings
from sync.database import IngestConnection
from sync.firehose import FirehoseReader
from sync.http import HttpClient
from sync.lane import Lane, LaneParts, SourceStopped
from sync.progress import Progress, SourceProgress
from sync.resolver import Resolver
from sync.sessions import end_if_cancelled, first_of, ingest_session, keep_working, take_lock
from sync.staging import LaneClaim
from sync.stream import FrameQueue, StreamState
from sync.wakes import Wakes, wait_for

LANE = 0
FIRST_LOCK_WAIT_S = 5.0
# Our own lost connection may live on in the server until its keepalives fail.
LATER_LOCK_WAIT_S = 90.0
POLL_S = 0.5
QUEUE_FRAMES = 4_096
QUEUE_BYTES = 32 << 20

_ENABLED = "select source_id, url, kind from sync.enabled_sources()"
_CLAIM_LANE = "select token, seq from sync.claim_lane($1, $2)"

_log = log.get("sources")


@dataclass(frozen=True, slots=True)
class Source:
    """A firehose as the database knows it."""

    source_id: int
    url: str
    kind: str


@dataclass(slots=True)
class SourceParts:
    """What every source needs."""

    settings: Settings
    database_url: str
    http: HttpClient
    resolver: Resolver
    progress: Progress
    wakes: Wakes
    # Set once every source that was enabled at the start has its lane.
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)


class SourceSupervisor:
    """Keep one task per enabled source."""

    def __init__(self, parts: SourceParts) -> None:
        self._parts = parts
        self._tasks: dict[Source, asyncio.Task[None]] = {}
        self._claimed: set[int] = set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self, conn: IngestConnection) -> None:
        """Follow the list of enabled sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._parts.wakes.sources.clear()
                enabled = {Source(*row) for row in await conn.fetch(_ENABLED)}
                self._follow(group, enabled)
                if {source.source_id for source in enabled} <= self._claimed:
                    self._parts.is_ready.set()
                await wait_for(self._parts.wakes.sources, timeout_s=POLL_S)

    def _follow(self, group: asyncio.TaskGroup, enabled: set[Source]) -> None:
        for source, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[source]
            elif source not in enabled:
                task.cancel()
        for source in enabled - self._tasks.keys():
            self._tasks[source] = group.create_task(self._run_source(source))

    async def _run_source(self, source: Source) -> None:
        """Run one source; returns when it is stopped for good."""
        parts = self._parts
        progress = SourceProgress(source.url, source.kind)
        parts.progress.sources[source.source_id] = progress
        try:
            while await self._run_once(source, progress):
                _log.warning("the lane starts over from its cursor", url=source.url)
        finally:
            progress.state = "stopped"

    async def _run_once(self, source: Source, progress: SourceProgress) -> bool:
        """Run a source until it falls; tells whether it may start over."""
        parts = self._parts
        try:
            await keep_working(
                parts.database_url,
                f"lane {source.source_id}",
                lambda conn: self._run_lane(source, conn, progress),
                progress=parts.progress,
            )
        except Exception as error:
            end_if_cancelled()
            cause = first_of(error)
            if isinstance(cause, LaneFenced):
                return True  # we still held the lock: an operator moved the cursor
            if not isinstance(cause, SourceStopped):
                raise
            progress.last_error = str(cause)
            _log.error("a source is stopped", url=source.url, reason=str(cause))
        return False

    async def _run_lane(
        self, source: Source, conn: IngestConnection, progress: SourceProgress
    ) -> None:
        parts = self._parts
        is_first = source.source_id not in self._claimed
        await take_lock(
            conn,
            source.source_id,
            wait_s=FIRST_LOCK_WAIT_S if is_first else LATER_LOCK_WAIT_S,
            what=f"reads {source.url}",
        )
        token, seq = await conn.fetchrow(_CLAIM_LANE, source.source_id, LANE) or (0, None)
        self._claimed.add(source.source_id)
        parts.wakes.sources.set()
        state = StreamState(seq)
        queue = FrameQueue(max_frames=QUEUE_FRAMES, max_bytes=QUEUE_BYTES)
        reader = FirehoseReader(
            source.url,
            state=state,
            queue=queue,
            policy=parts.http.policy,
            user_agent=parts.settings.user_agent,
            progress=progress,
            max_frame_bytes=parts.settings.max_frame_bytes,
        )
        async with ingest_session(
            parts.database_url, name=f"lane {source.source_id} control"
        ) as control:
            lane = Lane(
                LaneParts(
                    claim=LaneClaim(source.source_id, LANE, token),
                    url=source.url,
                    is_pds=source.kind == "pds",
                    settings=parts.settings,
                    conn=conn,
                    control=control,
                    state=state,
                    queue=queue,
                    reader=reader,
                    resolver=parts.resolver,
                    progress=parts.progress,
                    source=progress,
                    wakes=parts.wakes,
                )
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(reader.run())
                group.create_task(lane.run())


def source_url(url: str) -> str:
    """Return the form in which the database knows a relay's or PDS's URL: wss://host."""
    parts = urlsplit(url)
    scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc.lower()}"
