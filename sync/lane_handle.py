"""One lane's process as its service sees it: started, fed, listened to, ended."""

import asyncio
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from sync.applier import LaneFenced
from sync.errors import DatabaseUnavailable, StandpipeError
from sync.lane import SourceStopped
from sync.lane_process import Order, Report, Start, read_message, write_message
from sync.sessions import LEASE_S
from sync.stream import FrameQueue

HAND_OVER_FRAMES = 32
HAND_OVER_BYTES = 4 << 20
# How long an idle lane waits for its next mark.
MARK_S = 0.05
QUEUE_FRAMES = 4_096
QUEUE_BYTES = 16 << 20
END_TIMEOUT_S = 2.0
# Many that start at once on a busy machine take long; to kill them would have all of them start
# again, and the machine even busier.
START_TIMEOUT_S = 180.0
LANE_MODULE = "sync.lane_process"


class LaneDied(StandpipeError):
    """A lane's process ended by itself; it starts over from its cursor."""


class LaneHandle:
    """One lane's process as the service sees it."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.lane = start.claim.lane
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
        silence_s = START_TIMEOUT_S
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    report = decode(await read_message(process.stdout))
            except TimeoutError:
                process.kill()
                raise LaneDied(
                    f"lane {self.lane} of {self.start.url} said nothing for {silence_s} s"
                ) from None
            except asyncio.IncompleteReadError:
                code = await process.wait()
                raise LaneDied(
                    f"lane {self.lane} of {self.start.url} ended with code {code}"
                ) from None
            silence_s = LEASE_S
            _raise_end(report)
            before, self.told = self.told, report
            on_report(self, before, report)


def environment() -> dict[str, str]:
    """Return an environment in which a lane runs this very code, whatever folder it starts in."""
    # An empty entry would be the current folder.
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


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
    """Close its input and wait; a process that does not end, or takes too long for us, is killed.

    Whoever waits may be cancelled again, by the group and by the source: no process is left over.
    """
    ending = asyncio.ensure_future(_wait_end(process))
    is_hurried = False
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            is_hurried = True
            with suppress(ProcessLookupError):
                process.kill()
    if is_hurried:
        raise asyncio.CancelledError
    ending.result()


async def _wait_end(process: Process) -> None:
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
