"""Run a reader and lanes for every enabled source, and start them again when they fall.

Several services share the lanes of a source; see `sync.shares`.
"""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from sync import log
from sync.config import Settings
from sync.database import IngestConnection
from sync.firehose import Backoff, FirehoseReader
from sync.http import HttpClient
from sync.lane import SourceStopped
from sync.lane_process import Start
from sync.lanes import Lanes
from sync.progress import Progress, SourceProgress
from sync.sessions import end_if_cancelled, is_database_error, leaves_of, reason_of
from sync.shares import shared_source
from sync.staging import LaneClaim
from sync.stream import StreamState
from sync.wakes import Wakes, wait_for

POLL_S = 0.5
FIRST_RESTART_S, MAX_RESTART_S, GOOD_LIFE_S = 0.1, 5.0, 10.0

_ENABLED = "select source_id, url, kind from sync.enabled_sources()"

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
    progress: Progress
    wakes: Wakes


class SourceSupervisor:
    """Keep one task per enabled source."""

    def __init__(self, parts: SourceParts) -> None:
        self._parts = parts
        self._tasks: dict[Source, asyncio.Task[None]] = {}

    async def run(self, conn: IngestConnection) -> None:
        """Follow the list of enabled sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._parts.wakes.sources.clear()
                enabled = {Source(*row) for row in await conn.fetch(_ENABLED)}
                self._follow(group, enabled)
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
            backoff = Backoff(first_s=FIRST_RESTART_S, max_s=MAX_RESTART_S)
            while True:
                started_at = time.monotonic()
                if not await self._run_once(source, progress):
                    return
                if time.monotonic() - started_at > GOOD_LIFE_S:
                    backoff.reset()
                await asyncio.sleep(backoff.next_delay_s())
        finally:
            progress.state = "stopped"

    async def _run_once(self, source: Source, progress: SourceProgress) -> bool:
        """Run a source until it falls; tells whether it may start over."""
        try:
            # In a task of its own, as in keep_working().
            await asyncio.ensure_future(self._read(source, progress))
        except Exception as error:
            end_if_cancelled()
            stopped = [leaf for leaf in leaves_of(error) if isinstance(leaf, SourceStopped)]
            if stopped:
                progress.last_error = str(stopped[0])
                _log.error("a source is stopped", url=source.url, reason=str(stopped[0]))
                return False
            if not is_database_error(error):
                raise
            _log.warning("a source starts over", url=source.url, reason=reason_of(error))
            return True
        return False

    async def _read(self, source: Source, progress: SourceProgress) -> None:
        """Read our share of a source until it falls."""
        parts = self._parts
        wanted = parts.settings.lanes
        async with shared_source(parts.database_url, source.source_id, wanted=wanted) as shares:
            state = StreamState(None)
            lanes = Lanes(
                shares,
                lambda claim, seq: self._start(source, claim, seq),
                state=state,
                progress=parts.progress,
                source=progress,
                wakes=parts.wakes,
            )
            reader = FirehoseReader(
                source.url,
                state=state,
                queue=lanes,
                policy=parts.http.policy,
                user_agent=parts.settings.user_agent,
                progress=progress,
                max_frame_bytes=parts.settings.max_frame_bytes,
            )
            lanes.drop = reader.drop
            async with asyncio.TaskGroup() as group:
                group.create_task(reader.run())
                group.create_task(lanes.run())

    def _start(self, source: Source, claim: LaneClaim, seq: int | None) -> Start:
        return Start(
            settings=self._parts.settings,
            database_url=self._parts.database_url,
            url=source.url,
            kind=source.kind,
            claim=claim,
            seq=seq,
        )


def source_url(url: str) -> str:
    """Return the form in which the database knows a relay's or PDS's URL: wss://host."""
    parts = urlsplit(url)
    scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc.lower()}"
