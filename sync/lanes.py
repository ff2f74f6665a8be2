"""The lanes of one source: processes that verify and apply, and who gets which frame.

A repo is always in one lane: the first four bytes of sha256(did), modulo their number. Frames are
handed over in order, with marks for a lane that gets none: "everything up to this seq was
somebody else's", so that the cursor of an idle lane moves on.

After a reconnect the stream starts at the lane that is furthest behind; what the others have been
sent already is not sent to them again.
"""

import asyncio
import hashlib
import os
import pickle
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sync.applier import LaneFenced
from sync.atproto.frame import peek
from sync.errors import DatabaseUnavailable, StandpipeError
from sync.lane import SourceStopped
from sync.lane_process import Order, Report, Start, read_message, write_message
from sync.progress import Progress, SourceProgress
from sync.sessions import LEASE_S
from sync.stream import Frame, FrameQueue, StreamState
from sync.wakes import Wakes

HAND_OVER_FRAMES = 32
HAND_OVER_BYTES = 4 << 20
# How long an idle lane waits for its next mark, and for news.
MARK_S = 0.05
NEWS_S = 0.02
# A source that says nothing for this long after the connection gets the start cursor 0.
QUIET_START_S = 0.5
QUEUE_FRAMES = 4_096
QUEUE_BYTES = 16 << 20
END_TIMEOUT_S = 2.0
LANE_MODULE = "sync.lane_process"


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

    def is_idle(self) -> bool:
        """Tell whether everything it was given is read."""
        return not len(self.queue) and self.told.number == self._number

    async def run(
        self,
        on_report: Callable[["LaneHandle", Report, Report], None],
        mark: Callable[[], int | None],
    ) -> None:
        """Keep the process fed and listen to it; raises what ended it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", LANE_MODULE, stdin=PIPE, stdout=PIPE, env=environment()
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

    async def _feed(self, process: Process, mark: Callable[[], int | None]) -> None:
        assert process.stdin is not None
        marked = self.sent
        while True:
            connection = self.queue.connection
            frames = await self.queue.take(
                max_frames=HAND_OVER_FRAMES, max_bytes=HAND_OVER_BYTES, timeout_s=MARK_S
            )
            if connection != self.queue.connection:
                frames = []  # it was given up while we waited
            # A mark must not overtake a frame that came at the very end of the wait.
            seq = None if frames or len(self.queue) else mark()
            if seq is not None and (marked is None or seq > marked):
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
                async with asyncio.timeout(LEASE_S):
                    report = decode(await read_message(process.stdout))
            except TimeoutError:
                process.kill()
                raise LaneDied(
                    f"lane {self.start.claim.lane} of {self.start.url} said nothing for {LEASE_S} s"
                ) from None
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
    ) -> None:
        self.connection = 0
        self.drop: Callable[[], None] = self.give_up_connection  # set to the reader's
        self._lanes = [LaneHandle(start) for start in starts]
        self._state = state
        self._progress = progress
        self._source = source
        self._wakes = wakes
        self._last = state.seq  # of this connection: no event may come before it
        self._passed: int | None = None  # of this connection: everything up to it was handed over
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Run every lane until one falls; raises what it says."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run(self._hear, lambda: self._passed))
            group.create_task(self._pass_news_on())

    # What the reader sees ---------------------------------------------------------------------

    async def put(self, frame: Frame, *, connection: int) -> bool:
        """Hand a frame to its lane, waiting for room; False when its connection was given up."""
        if connection != self.connection:
            return False
        did, seq = peek(frame) if isinstance(frame, bytes) else (None, None)
        lane = self._lanes[0 if did is None else lane_of(did, len(self._lanes))]
        if seq is not None and self._last is not None and seq < self._last:
            seq = None
        if seq is not None and lane.sent is not None and seq <= lane.sent:
            self._pass(seq)  # it was sent before the reconnect
            return True
        if seq is None and self._last is not None:
            # What cannot be read is judged by where it stands (ES-13), what fell by what came
            # before (CU-03): the lane is to know, also where its own last frame was earlier.
            await lane.queue.put(self._last, connection=lane.queue.connection)
        self._idle.clear()
        await lane.queue.put(frame, connection=lane.queue.connection)
        if connection != self.connection:
            return False
        if seq is not None:
            lane.sent = seq
            self._pass(seq)
        return True

    def give_up_connection(self) -> None:
        """Take no more frames of this connection."""
        self.connection += 1
        self._passed = None

    async def wait_idle(self) -> None:
        """Wait until every lane has read what it was given; the next connection starts there."""
        await self._idle.wait()
        self._last, self._passed = self._state.seq, None

    def _pass(self, seq: int) -> None:
        self._last = self._passed = self._state.seq = seq

    # What the lanes say -----------------------------------------------------------------------

    def _hear(self, lane: LaneHandle, before: Report, report: Report) -> None:
        progress, source = self._progress, self._source
        source.events += report.events - before.events
        progress.problems += report.problems - before.problems
        for outcome, count in report.outcomes.items():
            progress.count_outcome(outcome, count - before.outcomes.get(outcome, 0))
        progress.tracked_repos = report.tracked_repos
        source.seq = max((each.told.seq or 0 for each in self._lanes), default=0) or None
        source.durable_seq = lowest(each.told.durable_seq for each in self._lanes)
        if report.dropped:
            # Its frames from there on are thrown away; the next connection brings them again.
            lane.sent = report.seq
            lane.queue.give_up_connection()
            self._state.seq = None if report.seq is None else lowest([self._state.seq, report.seq])
            self.drop()
        if report.published:
            self._wakes.fetches.set()
        if all(each.is_idle() for each in self._lanes):
            self._idle.set()

    async def _pass_news_on(self) -> None:
        """Tell the lanes what else happens: gaps, notifications of the database."""
        serial = self._wakes.serial
        while True:
            await asyncio.sleep(NEWS_S)
            self._start_quiet_source()
            order = Order()
            if serial != self._wakes.serial:
                serial, order.wakes = self._wakes.serial, True
            if self._state.is_gap_suspected:
                self._state.is_gap_suspected, order.has_gap = False, True
            if order != Order():
                for lane in self._lanes:
                    lane.notices.append(msgspec.structs.replace(order))

    def _start_quiet_source(self) -> None:
        """Give a source without traffic a start cursor, for until then nothing is fetched.

        A fetch needs a position from which the stream can be replayed (BF-01). Zero is one:
        the oldest event the server retains (CU-07), and there are not many.
        """
        state = self._state
        if state.seq is not None or state.connected_at is None:
            return
        if time.monotonic() - state.connected_at >= QUIET_START_S:
            self._pass(0)


def environment() -> dict[str, str]:
    """Return an environment in which a lane runs this very code, whatever folder it starts in."""
    # An empty entry would be the current folder.
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def lane_of(did: str, count: int) -> int:
    """Return the lane of a repo."""
    return int.from_bytes(hashlib.sha256(did.encode()).digest()[:4], "big") % count


def lowest(seqs: Iterable[int | None]) -> int | None:
    """Return the lowest seq that is known."""
    return min((seq for seq in seqs if seq is not None), default=None)


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
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.stdout.read()  # to its end, which also lets go of the pipe
    except TimeoutError:
        process.kill()
        await process.stdout.read()
    await process.wait()
    with suppress(ConnectionError):
        await process.stdin.wait_closed()
