"""The lanes of one source: processes that verify and apply, and who gets which frame.

A repo is always in one lane: the first four bytes of sha256(did), modulo their number. Frames are
handed over in order, with marks for a lane that gets none: "everything up to this seq was
somebody else's", so that the cursor of an idle lane moves on.

After a reconnect the stream starts at the lane that is furthest behind; what the others have been
sent already is not sent to them again.
"""

import asyncio
import hashlib
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from sync import log
from sync.applier import LaneFenced
from sync.atproto.frame import peek
from sync.errors import DatabaseUnavailable, StandpipeError
from sync.lane import SourceStopped
from sync.lane_process import Order, Report, Start, read_message, write_message
from sync.progress import Progress, SourceProgress
from sync.stream import Frame, FrameQueue, StreamState
from sync.wakes import Wakes

HAND_OVER_FRAMES = 32
HAND_OVER_BYTES = 4 << 20
# How long an idle lane waits for its next mark.
MARK_S = 0.1
QUEUE_FRAMES = 4_096
QUEUE_BYTES = 16 << 20
END_TIMEOUT_S = 2.0

_log = log.get("lane")


class LaneDied(StandpipeError):
    """A lane's process ended by itself; it starts over from its cursor."""


class LaneHandle:
    """One lane's process as the service sees it."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.queue = FrameQueue(max_frames=QUEUE_FRAMES, max_bytes=QUEUE_BYTES)
        self.sent = start.seq  # everything up to here was handed over, or is in the queue
        self.told = Report(seq=start.seq)
        self.notices: list[Order] = []
        self._number = 0
        self._is_marked = asyncio.Event()

    @property
    def position(self) -> int | None:
        """Return the last seq that the lane has read."""
        return self.told.seq

    def is_idle(self) -> bool:
        """Tell whether everything it was given is read."""
        return not len(self.queue) and self.told.number == self._number

    async def run(
        self, on_report: Callable[["LaneHandle", Report, Report], None], mark: Callable[[], int]
    ) -> None:
        """Keep the process fed and listen to it; raises what ended it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sync.lane_process", stdin=PIPE, stdout=PIPE
        )
        try:
            assert process.stdin is not None
            process.stdin.write(write_message(pickle.dumps(self.start)))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(process, mark))
                await self._listen(process, on_report)
                feeding.cancel()
        finally:
            await _end(process)

    async def _feed(self, process: Process, mark: Callable[[], int]) -> None:
        assert process.stdin is not None
        marked = self.sent
        while True:
            connection = self.queue.connection
            frames = await self.queue.take(
                max_frames=HAND_OVER_FRAMES, max_bytes=HAND_OVER_BYTES, timeout_s=MARK_S
            )
            if connection != self.queue.connection:
                frames = []  # it was given up while we waited
            if not frames and (seq := mark()) is not None and (marked is None or seq > marked):
                frames, marked = [seq], seq
            orders = self.notices
            self.notices = []
            if frames:
                self._number += 1
                orders.append(Order(self._number, self.queue.connection, frames))
            for order in orders:
                order.number = self._number
                process.stdin.write(write_message(order))
            with suppress(ConnectionError):  # who listens sees why
                await process.stdin.drain()

    async def _listen(
        self, process: Process, on_report: Callable[["LaneHandle", Report, Report], None]
    ) -> None:
        assert process.stdout is not None
        decode = msgspec.msgpack.Decoder(Report).decode
        while True:
            try:
                report = decode(await read_message(process.stdout))
            except asyncio.IncompleteReadError:
                code = await process.wait()
                raise LaneDied(
                    f"lane {self.start.claim.lane} of {self.start.url} ended with code {code}"
                ) from None
            _raise_end(report)
            before, self.told = self.told, report
            on_report(self, before, report)


class Lanes:
    """All lanes of a source, in the shape in which the reader knows a queue."""

    def __init__(
        self,
        starts: Sequence[Start],
        *,
        state: StreamState,
        progress: Progress,
        source: SourceProgress,
        wakes: Wakes,
        drop: Callable[[], None],
    ) -> None:
        self.connection = 0
        self._lanes = [LaneHandle(start) for start in starts]
        self._state = state
        self._progress = progress
        self._source = source
        self._wakes = wakes
        self._drop = drop
        self._last: int | None = None  # the last seq of this connection
        self._reached = state.seq  # everything up to here was given to its lane
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Run every lane until one falls; raises what it says."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run(self._hear, self._mark))
            group.create_task(self._pass_wakes_on())

    # What the reader sees ---------------------------------------------------------------------

    async def put(self, frame: Frame, *, connection: int) -> bool:
        """Hand a frame to its lane, waiting for room; False when its connection was given up."""
        if connection != self.connection:
            return False
        assert not isinstance(frame, int)
        did, seq = peek(frame) if isinstance(frame, bytes) else (None, None)
        lane = self._lanes[0] if did is None else self._lanes[lane_of(did, len(self._lanes))]
        if seq is not None and self._last is not None and seq < self._last:
            # The lane is to see that it fell (CU-03), also where its own last frame was earlier.
            await lane.queue.put(self._last, connection=lane.queue.connection)
        elif seq is not None:
            self._last = seq
            if lane.sent is not None and seq <= lane.sent:
                return True  # sent before the reconnect
            lane.sent = seq
        self._idle.clear()
        is_taken = await lane.queue.put(frame, connection=lane.queue.connection)
        if seq is not None and (self._reached is None or seq > self._reached):
            self._reached = seq
        return is_taken and connection == self.connection

    def give_up_connection(self) -> None:
        """Take no more frames of this connection."""
        self.connection += 1

    async def wait_idle(self) -> None:
        """Wait until every lane has read what it was given; the next connection starts there."""
        await self._idle.wait()
        self._last = None
        positions = [lane.position for lane in self._lanes]
        known = [position for position in positions if position is not None]
        if len(known) == len(positions):
            self._state.seq = max(min(known), self._state.seq or 0)

    def note_connected(self, is_connected: bool) -> None:
        """Tell the lanes whether there is a connection."""
        self._notify(Order(connected=is_connected))

    def note_gap(self) -> None:
        """Tell the lanes that frames were passed over."""
        self._notify(Order(has_gap=True))

    # What the lanes say -----------------------------------------------------------------------

    def _hear(self, lane: LaneHandle, before: Report, report: Report) -> None:
        progress, source = self._progress, self._source
        source.events += report.events - before.events
        progress.problems += report.problems - before.problems
        for outcome, count in report.outcomes.items():
            progress.count_outcome(outcome, count - before.outcomes.get(outcome, 0))
        progress.tracked_repos = report.tracked_repos
        source.seq = self._reached
        durable = [each.told.durable_seq for each in self._lanes]
        source.durable_seq = None if None in durable else min(filter(None, durable), default=0)
        if report.dropped:
            lane.sent = report.seq
            lane.queue.give_up_connection()
            self.give_up_connection()
            self._drop()
        if report.published:
            self._wakes.fetches.set()
        if all(each.is_idle() for each in self._lanes):
            self._idle.set()

    def _mark(self) -> int | None:
        return self._reached

    def _notify(self, order: Order) -> None:
        for lane in self._lanes:
            lane.notices.append(msgspec.structs.replace(order))

    async def _pass_wakes_on(self) -> None:
        serial = self._wakes.serial
        while True:
            await asyncio.sleep(0.02)
            if serial != self._wakes.serial:
                serial = self._wakes.serial
                self._notify(Order(wakes=True))


def lane_of(did: str, count: int) -> int:
    """Return the lane of a repo."""
    return int.from_bytes(hashlib.sha256(did.encode()).digest()[:4], "big") % count


def lowest(seqs: Iterable[int | None]) -> int | None:
    """Return the seq to resume at; None when a lane never had one."""
    known = list(seqs)
    return None if None in known else min(seq for seq in known if seq is not None)


def _raise_end(report: Report) -> None:
    if report.ended == "stopped":
        raise SourceStopped(report.reason)
    if report.ended == "fenced":
        raise LaneFenced(report.reason)
    if report.ended == "database":
        raise DatabaseUnavailable(report.reason)
    if report.ended == "failed":
        raise LaneDied(report.reason)


async def _end(process: Process) -> None:
    """Close its input and wait; a process that does not end is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
