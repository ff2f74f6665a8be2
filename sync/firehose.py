"""Read one firehose: connect, forward frames, reconnect. Nothing is decoded here.

Decoding in the reader would cost a factor of five in throughput; it only forwards. The cursor to
resume from is known to the lane, so a new connection waits until the lane has read what the old
one delivered.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from sync import log
from sync.atproto.frame import MAX_FRAME_BYTES
from sync.http import AddressPolicy, retry_after_s
from sync.progress import SourceProgress
from sync.stream import Frame, StreamState

SUBSCRIBE_PATH = "/xrpc/com.atproto.sync.subscribeRepos"
OPEN_TIMEOUT_S = 15.0
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
# Pings show that somebody is there, not that events still reach him: a proxy answers them, too.
IDLE_TIMEOUT_S = 600.0
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 60.0
MAX_RETRY_AFTER_S = 600.0
# A connection that lived this long was a good one, even if nothing happened on it.
GOOD_CONNECTION_S = 60.0
# Answers to the handshake that a retry will not change soon (ES-02).
_OUR_FAULT = {400, 401, 403, 404, 405, 426, 501}

# How we close a connection whose next frame cannot be received.
_UNREADABLE = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.INVALID_DATA,
    CloseCode.MESSAGE_TOO_BIG,
}

_log = log.get("firehose")


class Backoff:
    """Growing pauses with jitter, so that thousands of clients do not return at once."""

    def __init__(self, *, first_s: float = FIRST_DELAY_S, max_s: float = MAX_DELAY_S) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._failures = 0

    def next_delay_s(self) -> float:
        """Return the next pause: twice the last one, of which a random half counts."""
        ceiling_s = min(self._max_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return ceiling_s * random.uniform(0.5, 1.0)

    def jump_to_max(self) -> None:
        """Make the next pause the longest one."""
        self._failures = 30

    def reset(self) -> None:
        """Start again at short pauses; only progress justifies that (CU-15)."""
        self._failures = 0


class Sink(Protocol):
    """Who takes the frames; `connection` is how many connections it has given up."""

    connection: int

    async def put(self, frame: Frame, *, connection: int) -> bool:
        """Take a frame, waiting for room; False when its connection was given up."""

    def give_up_connection(self) -> None:
        """Throw away the frames of this connection, also those still on their way in."""

    async def wait_idle(self) -> None:
        """Wait until every frame was read; the state then says where to go on."""


class FirehoseReader:
    """Keep one subscription alive and forward its frames."""

    def __init__(
        self,
        url: str,
        *,
        state: StreamState,
        queue: Sink,
        policy: AddressPolicy,
        user_agent: str,
        progress: SourceProgress,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._url = url
        self._state = state
        self._queue = queue
        self._policy = policy
        self._user_agent = user_agent
        self._progress = progress
        self._max_frame_bytes = min(max_frame_bytes, MAX_FRAME_BYTES)
        self._backoff = Backoff()
        self._websocket: ClientConnection | None = None

    def drop(self) -> None:
        """Give the connection up, with every frame that is still on its way to the lane."""
        self._queue.give_up_connection()
        if self._websocket is not None:
            self._websocket.transport.abort()

    async def run(self) -> None:
        """Read for ever; returns only by cancellation."""
        while True:
            await self._queue.wait_idle()
            cursor, connection = self._state.seq, self._queue.connection
            started_at = time.monotonic()
            self._progress.state = "connecting"
            retry_s = await self._read_connection(cursor, connection)
            self._state.connected_at = None
            await self._queue.wait_idle()
            is_long = time.monotonic() - started_at >= GOOD_CONNECTION_S
            if is_long or self._state.seq != cursor:
                self._backoff.reset()
            self._progress.state = "waiting"
            await asyncio.sleep(max(retry_s, self._backoff.next_delay_s()))

    async def _read_connection(self, cursor: int | None, connection: int) -> float:
        """Forward one connection's frames until it ends; returns the pause the server wants."""
        try:
            async with self._connect(cursor) as websocket:
                if connection != self._queue.connection:
                    return 0.0  # given up while we connected: it would begin in the wrong place
                self._state.connected_at = time.monotonic()
                self._progress.state, self._progress.last_error = "live", ""
                _log.info("connected", url=self._url, cursor=cursor)
                self._note_end(await self._forward(websocket, connection))
        except ConnectionClosed as error:
            sent = error.sent.code if error.sent is not None else None
            if sent in _UNREADABLE and self._state.step_past_unreadable():
                _log.warning("stepped past an unreadable frame", url=self._url, cursor=cursor)
            self._note_end(str(error))
        except InvalidStatus as error:
            return self._judge_status(error)
        except (OSError, WebSocketException, ValueError, EOFError) as error:
            self._note_end(f"{type(error).__name__}: {error}")
        return 0.0

    async def _forward(self, websocket: ClientConnection, connection: int) -> str:
        """Forward frames until the stream ends; returns why."""
        watching = asyncio.create_task(self._watch(websocket))
        try:
            async for frame in websocket:
                self._progress.frames += 1
                self._progress.frame_bytes += len(frame)
                if not await self._queue.put(frame, connection=connection):
                    return "we gave it up"
        except ConnectionClosed:
            if not watching.done():
                raise
        finally:
            watching.cancel()
        if watching.done() and not watching.cancelled():
            return f"it was silent for {IDLE_TIMEOUT_S:.0f} s"
        return "the server closed the stream"

    async def _watch(self, websocket: ClientConnection) -> None:
        """Cut a connection over which nothing has come for too long; returns when it is cut."""
        seen = -1
        while seen != self._progress.frames:
            seen = self._progress.frames
            await asyncio.sleep(IDLE_TIMEOUT_S)
        websocket.transport.abort()

    @asynccontextmanager
    async def _connect(self, cursor: int | None) -> AsyncIterator[ClientConnection]:
        """Connect to an address that was checked, not to whatever the name means later."""
        url = subscribe_url(self._url, cursor)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        self._policy.check_url(httpx.URL(url))
        addresses = await self._policy.addresses(host, port)
        websocket = self._websocket = await self._connect_to(url, addresses, port)
        try:
            yield websocket
        finally:
            self._websocket = None
            await websocket.close()

    async def _connect_to(self, url: str, addresses: list[str], port: int) -> ClientConnection:
        """Try the addresses in turn; an explicit host also forbids redirects elsewhere (ES-20)."""
        for address in addresses:
            try:
                return await connect(
                    url,
                    host=address,
                    port=port,
                    proxy=None,
                    compression=None,
                    max_size=self._max_frame_bytes,
                    open_timeout=OPEN_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    ping_timeout=PING_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    user_agent_header=self._user_agent,
                )
            except OSError:
                if address == addresses[-1]:
                    raise
        raise OSError(f"{urlsplit(url).hostname} has no address")

    def _judge_status(self, error: InvalidStatus) -> float:
        """Map a refused handshake to a pause (ES-02)."""
        status = error.response.status_code
        self._note_end(f"the server answers {status} to the subscription")
        if status in _OUR_FAULT:
            self._backoff.jump_to_max()
        headers = httpx.Headers(
            [
                (name.encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in error.response.headers.raw_items()
            ]
        )
        return retry_after_s(headers, now=datetime.now(UTC), cap_s=MAX_RETRY_AFTER_S) or 0.0

    def _note_end(self, reason: str) -> None:
        # A source that is down fails again and again: only the first time is news.
        if reason != self._progress.last_error:
            _log.warning("not connected", url=self._url, reason=reason)
        self._progress.last_error = reason


def subscribe_url(base_url: str, cursor: int | None) -> str:
    """Return the WebSocket URL of a source's event stream."""
    parts = urlsplit(base_url)
    scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, parts.scheme)
    query = "" if cursor is None else "?" + urlencode({"cursor": cursor})
    return f"{scheme}://{parts.netloc}{SUBSCRIBE_PATH}{query}"
