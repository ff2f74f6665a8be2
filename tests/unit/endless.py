"""Servers that never come to an end, and how asking them ends."""

import asyncio
import base64
import hashlib
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

from sync import firehose
from sync.http import AddressPolicy, HttpClient, HttpFailure
from sync.progress import SourceProgress
from sync.stream import FrameQueue, StreamState

MIB = 1 << 20
# With whom never ends to answer, and with whom is to be told by something else.
SHORT_S, LONG_S = 1.0, 60.0
Work = Callable[[], str]


@asynccontextmanager
async def _server(parts: list[bytes]) -> AsyncIterator[str]:
    """Answer each request with parts, the last one for ever; yields the place."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part.replace(b"ACCEPT", _accept(request)))
            while True:
                writer.write(parts[-1])
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _accept(request: bytes) -> bytes:
    """Return what a server of websockets answers to a request, if it is one."""
    found = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    if found is None:
        return b""
    digest = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest)


async def _ask(parts: list[bytes], ask: Callable[[HttpClient, str], Any]) -> str:
    """Ask a server and return how that ends."""
    async with (
        _server(parts) as place,
        HttpClient(user_agent="test", allow_private_hosts=True) as http,
    ):
        try:
            await ask(http, f"http://{place}/")
        except HttpFailure as error:
            return error.reason
    return "taken"


async def _subscribe(parts: list[bytes], patience_s: float) -> str:
    """Subscribe at a server and return how that ends."""
    async with _server(parts) as place:
        progress = SourceProgress(place, "relay")
        reader = firehose.FirehoseReader(
            f"ws://{place}",
            state=StreamState(None),
            queue=FrameQueue(max_frames=9, max_bytes=MIB),
            policy=AddressPolicy(allow_private_hosts=True),
            user_agent="test",
            progress=progress,
        )
        with (
            patch.object(firehose, "OPEN_TIMEOUT_S", patience_s),
            patch.object(firehose, "PING_INTERVAL_S", SHORT_S),
            patch.object(firehose, "PING_TIMEOUT_S", SHORT_S),
        ):
            await reader._read_connection(None, 0)
        return progress.last_error


def endless_streams() -> dict[str, Work]:
    """Return streams whose messages never end."""
    upgrade = (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: ACCEPT\r\n"
    )
    piece = bytes(60_000)
    fragment = b"\x7e" + len(piece).to_bytes(2, "big") + piece

    def case(*parts: bytes, patience_s: float) -> Work:
        return lambda: asyncio.run(_subscribe(list(parts), patience_s))

    return {
        "a header without end": case(upgrade + b"x: ", bytes(MIB), patience_s=SHORT_S),
        "headers without end": case(upgrade, b"x: y\r\n" * 1000, patience_s=SHORT_S),
        "a frame of 2^62": case(upgrade + b"\r\n\x82\x7f\x40" + bytes(7), piece, patience_s=LONG_S),
        "fragments without end": case(
            upgrade + b"\r\n\x02" + fragment, b"\0" + fragment, patience_s=LONG_S
        ),
    }


def endless_answers() -> dict[str, Work]:
    """Return answers of web servers that never end or unfold."""
    ok = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
    piece = bytes(MIB)
    chunk = b"100000\r\n" + piece + b"\r\n"

    def get(http: HttpClient, url: str) -> Any:
        return http.get(url, max_bytes=1000, timeout_s=LONG_S)

    def download(http: HttpClient, url: str) -> Any:
        return http.download(url, tempfile.TemporaryFile(), max_bytes=50 * MIB, timeout_s=LONG_S)

    def case(ask: Callable[[HttpClient, str], Any], *parts: bytes) -> Work:
        return lambda: asyncio.run(_ask(list(parts), ask))

    return {
        "a header without end": case(get, ok + b"x: ", piece),
        "headers without end": case(get, ok, b"x: y\r\n" * 1000),
        "a document without end": case(get, ok + b"\r\n", piece),
        "a document that says 1 TB": case(
            get, ok + b"content-length: 1099511627776\r\n\r\n", piece
        ),
        "chunks without end": case(get, ok + b"transfer-encoding: chunked\r\n\r\n", chunk),
        "a chunk of 2^60": case(
            get, ok + b"transfer-encoding: chunked\r\n\r\n1000000000000000\r\n", piece
        ),
        "an export without end": case(download, ok + b"\r\n", piece),
        "an export of zeros, packed": case(
            download, ok + b"content-encoding: gzip\r\n\r\n" + _packed_zeros(), piece
        ),
    }


def _packed_zeros() -> bytes:
    """Return many zeros as a little gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(256)) + packer.flush()
