"""What `standpipe run` shows on a terminal: numbers from the service and from the database."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import asyncpg
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sync.cli.output import counted, show
from sync.database import connect
from sync.errors import StandpipeError
from sync.progress import Progress
from sync.roles import READER

REFRESH_S = 1.0
QUERY_TIMEOUT_S = 5.0
RATE_WINDOW_S = 10.0
MAX_PROBLEMS = 4
_STATES = ("synchronized", "fetching", "pending", "desynchronized", "failed", "hidden")

_STATUS = "select * from sync.status"
_PROBLEMS = """
    select p.last_seen_at, p.reason, p.did, p.host, p.events
      from sync.problems p order by p.last_seen_at desc limit $1
"""


@dataclass(slots=True)
class Rate:
    """How fast a counter grew lately."""

    points: deque[tuple[float, int]] = field(default_factory=deque)

    def update(self, count: int, now: float) -> float:
        """Add a reading and return the growth per second over the window."""
        self.points.append((now, count))
        while len(self.points) > 2 and now - self.points[0][0] > RATE_WINDOW_S:
            self.points.popleft()
        (start, before), (end, after) = self.points[0], self.points[-1]
        return (after - before) / (end - start) if end > start else 0.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database said last."""

    status: dict[str, Any] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


class Display:
    """Draw the progress once a second; nothing that goes wrong here disturbs the service."""

    def __init__(
        self, progress: Progress, url: str, *, title: str, console: Console | None = None
    ) -> None:
        self._progress = progress
        self._url = url
        self._title = title
        self._events, self._records = Rate(), Rate()
        self._stored = Stored()
        self._live = Live(
            console=console or Console(stderr=True, highlight=False), auto_refresh=False
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._live.start()
        self._task = asyncio.create_task(self._draw_forever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._live.update(self.render(), refresh=True)
        self._live.stop()

    async def _draw_forever(self) -> None:
        while True:
            await self._read_database()
            self._live.update(self.render(), refresh=True)
            await asyncio.sleep(REFRESH_S)

    async def _read_database(self) -> None:
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                conn = await connect(self._url, name="standpipe display", role=READER)
                try:
                    status = await conn.fetchrow(_STATUS)
                    problems = await conn.fetch(_PROBLEMS, MAX_PROBLEMS)
                finally:
                    await conn.close()
        except (OSError, TimeoutError, StandpipeError, asyncpg.PostgresError):
            return  # the picture stays as it was; the service says what is wrong
        self._stored = Stored(dict(status or {}), [dict(row) for row in problems])

    def render(self) -> Group:
        """Return the picture of this moment."""
        return Group(
            Text(f"standpipe on {self._title}, {self._progress.elapsed_s:,.0f} s", style="bold"),
            self._repos(),
            *self._sources(),
            self._work(),
            *self._problems(),
        )

    def _repos(self) -> Text:
        status = self._stored.status
        if not status:
            return Text("the database has not answered yet")
        states = (f"{status[name]:,} {name}" for name in _STATES if status.get(name))
        parts = [
            ": ".join(filter(None, (counted(status["repos"], "repo"), ", ".join(states)))),
            f"about {counted(status['records_estimate'], 'record')}",
            counted(status["held_events"], "held event"),
            f"log at {status['log_head']}",
        ]
        return Text(" · ".join(parts))

    def _sources(self) -> list[Text]:
        return [
            Text(
                f"{show(source.url)}: {source.state}, read to {show(source.seq) or 'nothing'}, "
                f"durable to {show(source.durable_seq) or 'nothing'}, "
                f"{counted(source.frames, 'frame')}, {counted(source.events, 'event')}"
            )
            for source in self._progress.sources.values()
        ]

    def _work(self) -> Text:
        progress, now = self._progress, time.monotonic()
        applied = progress.outcomes.get("applied", 0)
        written = progress.records_created + progress.records_updated + progress.records_deleted
        lag = self._stored.status.get("lag_seconds")
        commits_per_s = self._events.update(applied, now)
        records_per_s = self._records.update(written, now)
        fetched = counted(progress.repos_fetched, "repo")
        parts = [
            f"{counted(applied, 'commit')} applied ({commits_per_s:,.0f}/s)",
            f"{fetched} fetched, {progress.fetches_running} running",
            f"{counted(written, 'record')} from fetches ({records_per_s:,.0f}/s)",
            f"lag {lag:,.1f} s" if lag is not None else "lag unknown",
        ]
        if not progress.is_database_up:
            parts.append("the database is away")
        if progress.gaps_open:
            parts.append(f"{counted(progress.gaps_open, 'gap')} being closed")
        return Text(" · ".join(parts))

    def _problems(self) -> list[Text]:
        return [
            Text(
                f"{show(row['last_seen_at'])} {show(row['reason'])} ({row['events']:,} times) "
                f"{show(row['did'] or row['host'])}",
                style="yellow",
                no_wrap=True,
                overflow="ellipsis",
            )
            for row in self._stored.problems
        ]
