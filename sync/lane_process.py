"""A lane in a process of its own: frames come by standard input, what it did goes to output.

The service starts it (`sync.lanes`) and is the only one who speaks to it. The first message is
the pickled `Start`; then MessagePack both ways, each message behind its length. A process whose
input ends ends as well, so that none outlives its service; a dead one is started again from its
cursor, as codecs may abort a process.
"""

import asyncio
import math
import os
import pickle
import signal
import struct
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sync import log
from sync.applier import LaneFenced
from sync.config import Settings
from sync.errors import StandpipeError
from sync.http import HttpClient
from sync.lane import Lane, LaneParts, SourceStopped
from sync.progress import Progress, SourceProgress
from sync.resolver import Resolver
from sync.sessions import (
    LANE_IDLE_TRANSACTION_TIMEOUT_S,
    first_of,
    ingest_session,
    is_database_error,
    reason_of,
)
from sync.staging import LaneClaim
from sync.stream import FrameQueue, StreamState
from sync.wakes import Wakes

QUEUE_FRAMES = 4_096
QUEUE_BYTES = 16 << 20
REPORT_S = 0.1
REPORT_PAUSE_S = 0.02
ALIVE_S = 1.0  # also when there is nothing to report

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Start:
    """What a lane process is told first."""

    settings: Settings
    database_url: str
    url: str
    kind: str
    claim: LaneClaim
    seq: int | None


class Order(msgspec.Struct, array_like=True):
    """From the service: frames in order, and what happened around them."""

    number: int = 0
    connection: int = 0  # how often this lane has given one up
    frames: list[Any] = []  # of Frame, which msgspec cannot tell apart by type alone
    has_gap: bool = False
    wakes: bool = False


class Report(msgspec.Struct, array_like=True):
    """To the service: how far it is, and what it counted since the last report."""

    number: int = 0  # of the last order whose frames are all done with
    seq: int | None = None  # the last event read
    durable_seq: int | None = None
    events: int = 0
    outcomes: dict[str, int] = {}
    problems: int = 0
    tracked_repos: int = 0
    dropped: bool = False  # the connection is to be given up
    published: bool = False  # a new filter generation is durable
    ended: Literal["", "stopped", "fenced", "database", "failed"] = ""
    reason: str = ""


def write_message(message: msgspec.Struct | bytes) -> bytes:
    """Return a message behind its length."""
    body = message if isinstance(message, bytes) else _encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Read the next message; raises `asyncio.IncompleteReadError` at the end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


class _LaneProcess:
    """The lane and its conversation with the service."""

    def __init__(self, start: Start, reader: asyncio.StreamReader, output: Any) -> None:
        self._start = start
        self._reader = reader
        self._output = output
        self._queue = FrameQueue(max_frames=QUEUE_FRAMES, max_bytes=QUEUE_BYTES)
        self._state = StreamState(start.seq)
        self._progress = Progress()
        self._source = SourceProgress(start.url, start.kind)
        self._wakes = Wakes()
        self._number = 0
        self._dropped = False
        self._published = False
        self._told = Report()
        self._told_at = -math.inf

    def drop(self) -> None:
        """Give the connection up: what is still under way from it is thrown away."""
        self._queue.give_up_connection()
        self._dropped = True

    async def run(self) -> None:
        """Work until the input ends."""
        work = [
            asyncio.ensure_future(each)
            for each in (self._run_lane(), self._obey(), self._report_forever())
        ]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        for task in done:
            if (error := task.exception()) is not None:
                ended, reason = _explain(error)
                self._send(Report(self._told.number, self._state.seq, ended=ended, reason=reason))
                return

    async def _run_lane(self) -> None:
        start = self._start
        name = f"lane {start.claim.source_id}.{start.claim.lane}"
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                HttpClient(
                    user_agent=start.settings.user_agent,
                    allow_private_hosts=start.settings.allow_private_hosts,
                )
            )
            resolver = Resolver.from_settings(http, start.settings)
            stack.push_async_callback(resolver.aclose)
            conn, control = [
                await stack.enter_async_context(
                    ingest_session(
                        start.database_url,
                        name=each,
                        idle_transaction_timeout_s=LANE_IDLE_TRANSACTION_TIMEOUT_S,
                    )
                )
                for each in (name, f"{name} control")
            ]
            await Lane(
                LaneParts(
                    claim=start.claim,
                    url=start.url,
                    is_pds=start.kind == "pds",
                    settings=start.settings,
                    conn=conn,
                    control=control,
                    state=self._state,
                    queue=self._queue,
                    reader=self,
                    resolver=resolver,
                    progress=self._progress,
                    source=self._source,
                    wakes=self._wakes,
                    publish=self._note_published,
                )
            ).run()

    def _note_published(self) -> None:
        self._published = True

    async def _obey(self) -> None:
        decode = msgspec.msgpack.Decoder(Order).decode
        while True:
            try:
                order = decode(await read_message(self._reader))
            except asyncio.IncompleteReadError:
                return
            if order.wakes:
                self._wakes.set_all()
            if order.has_gap:
                self._state.is_gap_suspected = True
            for frame in order.frames:
                if not await self._queue.put(frame, connection=order.connection):
                    break
            self._number = order.number

    async def _report_forever(self) -> None:
        """Tell how far the lane is: at once when it has nothing left, else now and then."""
        while True:
            number = self._number
            try:
                async with asyncio.timeout(REPORT_S):
                    await self._queue.wait_idle()
            except TimeoutError:
                number = self._told.number
            self._report(number)
            await asyncio.sleep(REPORT_PAUSE_S)

    def _report(self, number: int) -> None:
        dropped, self._dropped = self._dropped, False
        published, self._published = self._published, False
        report = Report(
            number=number,
            seq=self._state.seq,
            durable_seq=self._source.durable_seq,
            events=self._source.events,
            outcomes=dict(self._progress.outcomes),
            problems=self._progress.problems,
            tracked_repos=self._progress.tracked_repos,
            dropped=dropped,
            published=published,
        )
        is_due = time.monotonic() - self._told_at >= ALIVE_S
        if report != self._told or is_due:
            self._told, self._told_at = report, time.monotonic()
            self._send(report)

    def _send(self, report: Report) -> None:
        self._output.write(write_message(report))
        self._output.flush()


def _explain(
    error: BaseException,
) -> tuple[Literal["stopped", "fenced", "database", "failed"], str]:
    cause = first_of(error)
    if isinstance(cause, SourceStopped):
        return "stopped", str(cause)
    if isinstance(cause, LaneFenced):
        return "fenced", str(cause)
    if is_database_error(error):
        return "database", reason_of(error)
    if not isinstance(cause, StandpipeError):
        log.get("lane").error("the lane fell", error=repr(cause), exc_info=cause)
    return "failed", f"{type(cause).__name__}: {cause}"


async def _main(start: Start, source: Any, output: Any) -> None:
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    await _LaneProcess(start, reader, output).run()


def main() -> None:
    """Run a lane until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the service decides when we end
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not disturb the conversation
    (length,) = _LENGTH.unpack(_read_exactly(source, _LENGTH.size))
    # From our own service, over our own pipe.
    start = pickle.loads(_read_exactly(source, length))  # noqa: S301
    log.setup(start.settings.log_format, start.settings.log_level)
    try:
        asyncio.run(_main(start, source, output))
    except BrokenPipeError:
        sys.exit(1)  # nobody is there any more


def _read_exactly(source: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.read(size - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data


if __name__ == "__main__":
    main()
