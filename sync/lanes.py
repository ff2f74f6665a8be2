"""The lanes of one source that are ours: who gets which frame, and how they come and go.

A repo is always in one lane: the first four bytes of sha256(did), modulo their number. Frames are
handed over in order, with marks for a lane that gets none: "everything up to this seq was
somebody else's", so that the cursor of an idle lane moves on. Every service reads the whole
stream and throws away what other services' lanes are for.

A lane that is new here, or starts over, begins at its cursor: the connection is given up, and the
next one starts at the lane that is furthest behind. What the others have been sent already is not
sent to them again.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable

import msgspec

from sync import log
from sync.applier import LaneFenced
from sync.atproto.frame import peek
from sync.firehose import Backoff
from sync.lane_handle import LaneDied, LaneHandle
from sync.lane_process import Order, Report, Start
from sync.progress import Progress, SourceProgress
from sync.sessions import LEASE_S, end_if_cancelled, is_database_error, reason_of
from sync.shares import SourceShares
from sync.staging import LaneClaim
from sync.stream import Frame, StreamState
from sync.wakes import Wakes

NEWS_S = 0.02
SHARE_S = LEASE_S / 15
# A source that says nothing for this long after the connection gets the start cursor 0.
QUIET_START_S = 0.5
FIRST_RESTART_S, MAX_RESTART_S, GOOD_LIFE_S = 0.1, 5.0, 10.0

_log = log.get("lanes")


class Lanes:
    """Our lanes of a source, in the shape in which the reader knows a queue."""

    def __init__(
        self,
        shares: SourceShares,
        start: Callable[[LaneClaim, int | None], Start],
        *,
        state: StreamState,
        progress: Progress,
        source: SourceProgress,
        wakes: Wakes,
    ) -> None:
        self.connection = 0
        self.drop: Callable[[], None] = self.give_up_connection  # set to the reader's
        self._shares = shares
        self._start = start
        self._lanes: dict[int, LaneHandle] = {}
        self._count = 0  # of all lanes, also of those that are others'
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._state = state
        self._progress = progress
        self._source = source
        self._wakes = wakes
        self._last = state.seq  # of this connection: no event may come before it
        self._passed: int | None = None  # of this connection: everything up to it was handed over
        self._idle = asyncio.Event()

    async def run(self) -> None:
        """Run what is ours until cancelled; raises what only the whole source can deal with."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_news_on())
            group.create_task(self._follow_share(group))

    # Which lanes are ours ---------------------------------------------------------------------

    async def _follow_share(self, group: asyncio.TaskGroup) -> None:
        """Start what becomes ours, stop and hand back what others are to have."""
        told = ""
        while True:
            share = await self._shares.look()
            if told != self._source.last_error:
                told = self._source.last_error
                await self._shares.note_trouble(told)
            if share.count != self._count:  # no token of before is worth anything now
                await self._stop(list(self._keepers))
                self._count = share.count
            await self._stop(share.surplus)
            for lane in sorted(share.surplus):
                _log.info("leaving a lane to another service", url=self._source.url, lane=lane)
                await self._shares.leave(lane)
            await self._begin(group, share.ours - share.surplus - self._keepers.keys())
            await asyncio.sleep(SHARE_S)

    async def _begin(self, group: asyncio.TaskGroup, lanes: Iterable[int]) -> None:
        claimed = [await self._claim(lane) for lane in sorted(lanes)]
        handles = [handle for handle in claimed if handle is not None]
        for handle in handles:
            self._keepers[handle.lane] = group.create_task(self._keep(handle))
        if handles:
            _log.info(
                "reading lanes", url=self._source.url, lanes=sorted(self._keepers), of=self._count
            )

    async def _stop(self, lanes: Iterable[int]) -> None:
        """End some lanes; who has them next reads again what they were given and did not apply."""
        keepers = [self._keepers.pop(lane) for lane in lanes if lane in self._keepers]
        for keeper in keepers:
            keeper.cancel()
        if keepers:
            await asyncio.wait(keepers)

    async def _claim(self, lane: int) -> LaneHandle | None:
        claimed = await self._shares.claim(lane, of=self._count)
        return None if claimed is None else LaneHandle(self._start(*claimed))

    async def _keep(self, first: LaneHandle) -> None:
        """Run a lane, and again from its cursor whenever it falls."""
        backoff = Backoff(first_s=FIRST_RESTART_S, max_s=MAX_RESTART_S)
        handle: LaneHandle | None = first
        while handle is not None:
            started_at = time.monotonic()
            try:
                # In a task of its own, as in keep_working().
                await asyncio.ensure_future(self._run_lane(handle))
            except Exception as error:  # only what a new start mends is kept
                end_if_cancelled()
                if not is_database_error(error, beside=(LaneFenced, LaneDied)):
                    raise
                _log.warning("a lane starts over", lane=first.lane, reason=reason_of(error))
            if time.monotonic() - started_at > GOOD_LIFE_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_delay_s())
            handle = await self._claim(first.lane)

    async def _run_lane(self, handle: LaneHandle) -> None:
        """Let a lane have its part of the stream for as long as it lives."""
        # Without a pause in between: the next connection starts where this lane stands, and no mark
        # of this one reaches it. Where nobody reads, what was read last does not matter.
        known = [self._state.seq] if self._lanes else []
        self._state.seq = lowest([*known, handle.start.seq])
        self._lanes[handle.lane] = handle
        self.drop()
        self._note_idle()
        try:
            await handle.run(self._hear, lambda: self._passed)
        finally:
            del self._lanes[handle.lane]
            handle.queue.give_up_connection()  # the reader may be waiting for room in it
            if not self._lanes:
                self.drop()
            self._note_idle()

    def _note_idle(self) -> None:
        """Say whether the reader may connect: somebody reads, and has read all he was given."""
        if self._lanes and all(each.is_idle() for each in self._lanes.values()):
            self._idle.set()
        else:
            self._idle.clear()

    # What the reader sees ---------------------------------------------------------------------

    async def put(self, frame: Frame, *, connection: int) -> bool:
        """Hand a frame to its lane, waiting for room; False when its connection was given up."""
        if connection != self.connection:
            return False
        did, seq = peek(frame) if isinstance(frame, bytes) else (None, None)
        lane = self._lane_for(did)
        if lane is None:
            if seq is not None and (self._last is None or seq > self._last):
                self._pass(seq)  # another service's
            return bool(self._lanes)
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

    def _lane_for(self, did: str | None) -> LaneHandle | None:
        """Return who is to have a frame; what is nobody's is the first one's to judge."""
        if did is None:
            return self._lanes[min(self._lanes)] if self._lanes else None
        return self._lanes.get(lane_of(did, self._count)) if self._count else None

    def give_up_connection(self) -> None:
        """Take no more frames of this connection."""
        self.connection += 1
        self._passed = None

    async def wait_idle(self) -> None:
        """Wait until every lane has read what it was given; the next connection starts there."""
        if not self._lanes:
            self._source.state = "standby"
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
        told = [each.told for each in self._lanes.values()]
        source.seq = max((each.seq or 0 for each in told), default=0) or None
        source.durable_seq = lowest(each.durable_seq for each in told)
        if report.dropped:
            # Its frames from there on are thrown away; the next connection brings them again.
            lane.sent = report.seq
            lane.queue.give_up_connection()
            self._state.seq = None if report.seq is None else lowest([self._state.seq, report.seq])
            self.drop()
        if report.published:
            self._wakes.fetches.set()
        self._note_idle()

    async def _pass_news_on(self) -> None:
        """Tell the lanes what else happens: gaps, notifications of the database."""
        serial = self._wakes.serial
        while True:
            await asyncio.sleep(NEWS_S)
            self._start_quiet_source()
            order = Order()
            if serial != self._wakes.serial:
                serial, order.wakes = self._wakes.serial, True
            if self._state.is_gap_suspected and self._lanes:
                self._state.is_gap_suspected, order.has_gap = False, True
            if order != Order():
                for lane in self._lanes.values():
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


def lane_of(did: str, count: int) -> int:
    """Return the lane of a repo."""
    return int.from_bytes(hashlib.sha256(did.encode()).digest()[:4], "big") % count


def lowest(seqs: Iterable[int | None]) -> int | None:
    """Return the lowest seq that is known."""
    return min((seq for seq in seqs if seq is not None), default=None)
