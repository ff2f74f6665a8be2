"""A proxy before PostgreSQL that understands enough of the protocol to name every step.

A step is what is answered by one ReadyForQuery: a simple query, or everything up to a Sync. It is
named after the connection's application_name and the function it calls; a COMMIT after the last
step of its transaction. The gate is asked before a step is forwarded, right after that, and when it
is answered and nobody knows yet.
"""

import asyncio
import re
import struct
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.acceptance.crash.gate import AFTER, BEFORE, DURING, Gate, Point

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_WORD = struct.Struct(">I")
_NUMBERS = re.compile(r"\s\d+([.]\d+)?")
_CALL = re.compile(r"\b(sync(?:_priv)?\.[a-z_]+|pg_[a-z_]+)\(")
_PARTITION = re.compile(r"_\d+\b")
_COPY = re.compile(r"copy \S*?\"?(stage_[a-z]+)", re.IGNORECASE)
# What asyncpg asks to learn about types; all the schema check does is look.
_DRIVERS_OWN = re.compile(r"typeinfo_tree|set_config[(]'jit'|current_setting[(]'jit'|to_regclass")
# Parse, Bind, Describe, Execute, Close: what waits for a Sync.
_PREPARING = {b"P", b"B", b"D", b"E", b"C"}
_LOST = (ConnectionError, asyncio.IncompleteReadError, OSError)


@dataclass(slots=True)
class Step:
    """One step on its way, and the point it is; what is only prepared has none."""

    point: Point | None


class PgProxy:
    """Listens on loopback for the service and speaks to one server in its name."""

    def __init__(self, host: str, port: int, gate: Gate) -> None:
        self.upstream = (host, port)
        self.gate = gate
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_Connection(self, reader, writer).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Connection:
    """One session: two pumps, and what is known of it."""

    def __init__(
        self, proxy: PgProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._gate = proxy.gate
        self._client = (reader, writer)
        self._part = ""
        self._statements: dict[bytes, str] = {}
        self._asked: deque[Step] = deque()
        self._last_call: str | None = None  # within the transaction
        self.client_port: int | None = writer.get_extra_info("peername")[1]
        self.backend_pid: int | None = None
        self.did: str | None = None

    async def run(self) -> None:
        """Serve until either side is gone; then the other one sees a cut connection."""
        client_reader, client_writer = self._client
        server_writer: asyncio.StreamWriter | None = None
        try:
            first = await self._read_first(client_reader, client_writer)
            server_reader, server_writer = await asyncio.open_connection(*self._proxy.upstream)
            server_writer.write(first)
            pumps = [
                asyncio.ensure_future(self._pump_questions(client_reader, server_writer)),
                asyncio.ensure_future(self._pump_answers(server_reader, client_writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                results = await asyncio.gather(*pumps, return_exceptions=True)
            _raise_bugs(results)
        except _LOST:
            pass
        finally:
            for writer in (client_writer, server_writer):
                if writer is not None:
                    writer.close()  # what was written still leaves

    async def _read_first(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Return the startup message, without encryption; or a request to cancel, as it is."""
        while True:
            length = await reader.readexactly(4)
            body = await reader.readexactly(_WORD.unpack(length)[0] - 4)
            (code,) = _WORD.unpack(body[:4])
            if code in {_SSL, _GSS}:
                writer.write(b"N")
                continue
            if code != _CANCEL:
                words = body[4:].split(b"\x00")
                names = dict(zip(words[::2], words[1::2], strict=False))
                self._part = part_of(names.get(b"application_name", b"").decode())
            return length + body

    # From the service to the server ------------------------------------------------------------

    async def _pump_questions(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pending, bound = bytearray(), None
        while True:
            kind, message = await _read_message(reader)
            body = message[5:]
            pending += message
            if kind == b"P":
                name, query = body.split(b"\x00", 2)[:2]
                self._statements[name] = query.decode()
            elif kind == b"B":
                bound = self._statements.get(body.split(b"\x00", 2)[1])
            elif kind == b"Q":
                bound = body.rstrip(b"\x00").decode()
            if kind in {b"S", b"Q"}:
                if not await self._forward(bytes(pending), bound, writer):
                    return
                pending, bound = bytearray(), None
            elif kind not in _PREPARING:
                writer.write(pending)
                pending = bytearray()

    async def _forward(self, data: bytes, sql: str | None, writer: asyncio.StreamWriter) -> bool:
        """Pass a step on, unless somebody was killed before it: then the session is over."""
        point = None if sql is None else self._name(sql)
        if point is not None and not await self._gate.pass_by(point, BEFORE, self):
            return False
        self._asked.append(Step(point))
        writer.write(data)
        await writer.drain()
        return point is None or await self._gate.pass_by(point, DURING, self)

    def _name(self, sql: str) -> Point | None:
        """Return what a step is; BEGIN is none, for nothing has happened yet."""
        word = sql.split(None, 1)[0].upper().rstrip(";")
        if word in {"BEGIN", "ROLLBACK"}:
            self._last_call = "" if word == "BEGIN" else None
            return None
        if _DRIVERS_OWN.search(sql):
            return None
        if word == "COMMIT":
            last, self._last_call = self._last_call, None
            return Point(self._part, f"COMMIT of {last or 'nothing'}")
        what = name_of(sql)
        if self._last_call is not None:
            self._last_call = what
            return Point(self._part, f"{what}, uncommitted")
        return Point(self._part, what)

    # From the server to the service ------------------------------------------------------------

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kept = bytearray()
        while True:
            kind, message = await _read_message(reader)
            if kind == b"K":
                (self.backend_pid,) = _WORD.unpack(message[5:9])
            point = self._asked[0].point if self._asked else None
            kept += message
            if kind == b"Z" and self._asked:
                self._asked.popleft()
                if point is not None and not await self._gate.pass_by(point, AFTER, self):
                    return
            elif kind != b"G" and point is not None and self._gate.is_awaited(point, AFTER):
                continue  # nobody is to know before the whole answer is here
            writer.write(kept)
            kept = bytearray()


def part_of(application_name: str) -> str:
    """Return which part of the service a connection belongs to."""
    return _NUMBERS.sub("", application_name.removeprefix("standpipe "))


def name_of(sql: str) -> str:
    """Name what a statement does, in the shortest way that tells it from others."""
    if copied := _COPY.match(sql):
        return f"COPY {copied[1]}"
    if called := _CALL.search(sql):
        return called[1]
    return _PARTITION.sub("", " ".join(sql.split()))[:60]


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (length,) = _WORD.unpack(head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


def _raise_bugs(results: list[BaseException | None]) -> None:
    """Raise what is no lost connection but an error of ours."""
    for result in results:
        if result is not None and not isinstance(result, (*_LOST, asyncio.CancelledError)):
            raise result
