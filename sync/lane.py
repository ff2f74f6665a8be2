"""One lane: read frames, drop what is not tracked, verify the rest, apply it in batches.

Two halves work side by side: one verifies the next batch while PostgreSQL applies the last one.
A batch and the cursor behind it are one transaction, so a crash at any point replays and never
loses. Batches are what the queue holds at the time: small when idle, large when behind.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sync import log
from sync.applier import Applier, Batch
from sync.atproto.frame import ErrorMessage, InfoMessage, peek_did
from sync.config import Settings
from sync.database import IngestConnection, Plans
from sync.errors import FramingError, IdentityError, MessageError, StandpipeError
from sync.problems import ProblemLog
from sync.progress import Progress, SourceProgress
from sync.resolver import Resolver
from sync.staging import LaneClaim, StagedEvent
from sync.stream import Frame, FrameQueue, StreamState
from sync.tracking import Signer, TrackedRepos
from sync.triage import Triage, Waiting
from sync.wakes import Wakes

TICK_S = 0.5
TAKE_TIMEOUT_S = 0.05
RELOAD_S = 0.5
MAX_BATCH_BYTES = 16 << 20
YIELD_EVERY = 32
REFRESH_TIMEOUT_S = 2.0
# Waiting for identities may cost a lane at most a tenth of its time (SG-09).
REFRESH_REST_FACTOR = 9.0
# What servers can be trusted to keep of their stream.
LEAST_WINDOW_S = 86_400.0

_STOP_SOURCE = "select sync.stop_source($1, $2)"

_log = log.get("lane")


class SourceStopped(StandpipeError):
    """The source cannot go on without an operator (D-14)."""


class Connection(Protocol):
    """What delivers the frames."""

    def drop(self) -> None:
        """Give it up, with every frame that is still on its way."""


@dataclass(slots=True)
class LaneParts:
    """Everything a lane works with."""

    claim: LaneClaim
    url: str
    is_pds: bool
    settings: Settings
    conn: IngestConnection
    control: IngestConnection
    state: StreamState
    queue: FrameQueue
    reader: "Connection"
    resolver: Resolver
    progress: Progress
    source: SourceProgress
    wakes: Wakes
    publish: Callable[[], None]  # a new filter generation is durable
    problems: ProblemLog = field(default_factory=ProblemLog)


class Lane:
    """Verify and apply the frames of one source."""

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts
        self._repos = TrackedRepos()
        self._triage = Triage(
            self._repos, url=parts.url, is_pds=parts.is_pds, problems=parts.problems
        )
        self._applier = Applier(
            parts.conn, parts.claim, progress=parts.progress, source=parts.source
        )
        self._plans = Plans(parts.control)
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(maxsize=1)
        self._reloaded_at = 0.0
        self._reloaded_serial = 0
        self._handed_over_at = 0.0
        self._refresh_after = 0.0
        self._renewed: set[str] = set()
        self._start_outdated_at = -math.inf
        # Without a cursor there is no telling what was missed before (CU-09).
        self._has_gap = parts.state.seq is None

    async def run(self) -> None:
        """Work until cancelled; raises `LaneFenced`, `SourceStopped` or a database error."""
        await self._repos.reload(self._parts.control)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._verify_forever())
            group.create_task(self._apply_forever())

    async def _apply_forever(self) -> None:
        published = 0
        while True:
            batch = await self._batches.get()
            await self._applier.apply(batch)
            if batch.generation != published:
                # What waited for the lanes to know it may be fetched now (BF-01).
                published = batch.generation
                self._parts.publish()

    async def _verify_forever(self) -> None:
        parts = self._parts
        while True:
            frames = await parts.queue.take(
                max_frames=parts.settings.batch_max,
                max_bytes=MAX_BATCH_BYTES,
                timeout_s=TAKE_TIMEOUT_S,
            )
            is_reloaded = await self._reload_if_due()
            events = await self._judge(frames)
            now = time.monotonic()
            is_due = now - self._handed_over_at >= TICK_S
            if events or is_reloaded or is_due or parts.problems:
                await self._batches.put(self._batch(events))
                self._handed_over_at = now

    def _batch(self, events: list[StagedEvent]) -> Batch:
        parts = self._parts
        parts.source.seq = parts.state.seq
        parts.source.events += len(events)
        has_gap = parts.state.is_gap_suspected or (self._has_gap and parts.state.seq is not None)
        if has_gap:
            self._has_gap = parts.state.is_gap_suspected = False
        return Batch(
            events=tuple(events),
            cursor=parts.state.seq,
            generation=self._repos.generation,
            problems=parts.problems.take(),
            has_gap=has_gap,
        )

    async def _reload_if_due(self) -> bool:
        now, serial = time.monotonic(), self._parts.wakes.serial
        if now - self._reloaded_at < RELOAD_S and serial == self._reloaded_serial:
            return False
        self._reloaded_at, self._reloaded_serial = now, serial
        await self._plans.renew_if_due()
        is_changed = await self._repos.reload(self._parts.control)
        self._parts.progress.tracked_repos = len(self._repos)
        return is_changed

    async def _judge(self, frames: list[Frame]) -> list[StagedEvent]:
        """Read and judge a batch of frames in order."""
        judged: list[StagedEvent | Waiting] = []
        skipped: Frame | None = None
        for number, frame in enumerate(frames):
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)  # the reader answers pings meanwhile
            did = peek_did(frame) if isinstance(frame, bytes) else None
            if did is not None and did not in self._repos:
                skipped = frame
                continue
            skipped = None
            if not await self._judge_frame(frame, judged):
                break
        if skipped is not None:
            # Only the last one of a run of strangers is read, for its sequence number.
            await self._judge_frame(skipped, judged)
        return await self._settle(judged)

    async def _judge_frame(self, frame: Frame, judged: list[StagedEvent | Waiting]) -> bool:
        """Judge one frame; False when the rest of its connection is not to be read."""
        sample = frame if isinstance(frame, bytes) else None
        try:
            message = self._parts.state.read(frame)
        except FramingError as error:
            self._triage.refuse(error.reason, detail=error.detail, sample=sample)
            self._parts.reader.drop()
            return False
        except MessageError as error:
            # Of strangers there is no end: they are counted together.
            did = getattr(error, "did", None)
            known = did if did is not None and did in self._repos else ""
            self._triage.refuse(error.reason, did=known, detail=error.detail, sample=sample)
            return True
        if isinstance(message, ErrorMessage):
            await self._obey_error(message)
            return False
        if isinstance(message, InfoMessage):
            self._obey_info(message)
            return True
        if message is None:
            return True
        did = getattr(message, "did", None)
        if did is not None and did not in self._repos:
            return True
        result = self._triage.judge(message)
        if result is not None:
            judged.append(result)
        return True

    def _obey_info(self, message: InfoMessage) -> None:
        if message.name != "OutdatedCursor":
            self._triage.refuse("info_message", detail=f"{message.name}: {message.message}")
        elif not self._is_start_outdated_again():
            # Keep reading: the window that is left is worth having (CU-08).
            self._parts.state.is_gap_suspected = True
            _log.warning("the cursor is too old: comparing all repos", url=self._parts.url)

    def _is_start_outdated_again(self) -> bool:
        """Tell whether this was said already of the cursor of a source that has sent nothing yet.

        Zero is always too old for a host whose last event is. But what it sent while we were not
        connected is in its window, unless we were away for longer than that.
        """
        if self._parts.state.seq != 0:
            return False
        now, before = time.monotonic(), self._start_outdated_at
        if now - before < LEAST_WINDOW_S:
            return True
        self._start_outdated_at = now
        return False

    async def _obey_error(self, message: ErrorMessage) -> None:
        """Leave the connection after an error frame; a cursor ahead of the server stops it."""
        parts = self._parts
        text = f"{message.error}: {message.message}"
        self._triage.refuse("error_frame", detail=text)
        parts.reader.drop()
        if message.error == "FutureCursor":
            await parts.problems.take().write(parts.control)
            await parts.control.execute(_STOP_SOURCE, parts.claim.source_id, text)
            raise SourceStopped(
                f"{parts.url} says our cursor {parts.state.seq} is in its future: it lost its "
                "history. Rewind it with sync.rewind_source(), then add the source again."
            )

    async def _settle(self, judged: list[StagedEvent | Waiting]) -> list[StagedEvent]:
        """Look identities up for what is in doubt, then judge it again, in its place."""
        waiting = {item.message.did for item in judged if isinstance(item, Waiting)}
        if waiting:
            await self._repos.look_up(self._parts.control, sorted(waiting))
            judged = self._again(judged)
            await self._refresh({item.message.did for item in judged if isinstance(item, Waiting)})
            judged = self._again(judged)
        settled: list[StagedEvent] = []
        for item in judged:
            event = self._triage.give_up(item) if isinstance(item, Waiting) else item
            settled.append(event)
            # What the database knows of a repo is made to follow what was just found out here.
            if event.did in self._renewed:
                self._renewed.discard(event.did)
                settled.append(StagedEvent(seq=event.seq, did=event.did, kind="identity"))
        self._renewed.clear()
        return settled

    def _again(self, judged: list[StagedEvent | Waiting]) -> list[StagedEvent | Waiting]:
        """Judge what waits once more, each in its place in the order."""
        results = (
            self._triage.judge(item.message) if isinstance(item, Waiting) else item
            for item in judged
        )
        return [result for result in results if result is not None]

    async def _refresh(self, dids: set[str]) -> None:
        """Resolve past the caches, all at once and briefly: a lane must not wait for strangers."""
        started_at = time.monotonic()
        if not dids or started_at < self._refresh_after:
            return
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                await asyncio.gather(*(self._refresh_one(did) for did in sorted(dids)))
        except TimeoutError:
            self._triage.refuse("identity_timed_out")
        spent_s = time.monotonic() - started_at
        self._refresh_after = started_at + spent_s * (1 + REFRESH_REST_FACTOR)

    async def _refresh_one(self, did: str) -> None:
        try:
            document = await self._parts.resolver.refresh(did)
        except IdentityError as error:
            self._triage.refuse(f"identity_{error.reason}", did=did, detail=error.detail)
            return
        if document is not None:
            signer = Signer(document.signing_key, document.pds_url)
            if signer != self._repos.signer(did):
                self._renewed.add(did)
            self._repos.learn(did, signer)
