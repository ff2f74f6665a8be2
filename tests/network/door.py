"""Stands in front of one real PDS at the address it announces, and passes everything on.

Frames of its event stream are not changed; the script strikes some out, or repeats them.
"""

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sync.simnet.listener import Listener
from tests.network.relay import MAX_FRAME_BYTES, SUBSCRIBE_PATH, Relay, read_frame

# Small, so that a PDS notices soon that nobody reads.
RECEIVE_BUFFER_BYTES = 65_536
ABNORMAL = 1006
# Headers that belong to one connection, not to what is passed on.
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Door:
    """Passes requests and frames of one host on."""

    def __init__(self, number: int, url: str, inner_url: str, relay: Relay) -> None:
        self.sent = 0  # the newest seq a subscriber was given, or came with
        self.passed = 0  # the newest that was passed on or struck out
        self.subscribers = 0
        self._number = number
        self._inner_url = inner_url
        self._relay = relay
        self._listener = Listener(self._build, port=urlsplit(url).port or 0)
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._client: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        async with aiohttp.ClientSession(auto_decompress=False) as self._client:
            await self._listener.start()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await self._listener.stop()

    def stall(self) -> None:
        """Stop reading the host's stream, as a consumer does that is too slow."""
        self._is_open.clear()

    def go_on(self) -> None:
        """Read again."""
        self._is_open.set()

    def _build(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get(SUBSCRIBE_PATH, self._subscribe)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        return app

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        try:
            async with self._client.request(
                request.method,
                f"{self._inner_url}{request.path_qs}",
                headers=request.headers,
                data=await request.read() if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in _HOP_HEADERS
                }
                body = await answer.read()
                return web.Response(status=answer.status, headers=headers, body=body)
        except aiohttp.ClientError:
            return _cut(request)

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        url = f"{self._inner_url.replace('http', 'ws', 1)}{request.path_qs}"
        narrow = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        narrow.setblocking(False)
        inner = urlsplit(self._inner_url)
        try:
            await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", inner.port))
            host = await connect(
                url,
                sock=narrow,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                max_queue=1,
                proxy=None,
            )
        except InvalidStatus as error:
            narrow.close()
            return web.Response(status=error.response.status_code, body=error.response.body)
        except OSError:
            narrow.close()
            return _cut(request)
        async with host:
            return await self._talk(request, host)

    async def _talk(self, request: web.Request, host: ClientConnection) -> web.StreamResponse:
        subscriber = web.WebSocketResponse(compress=False, max_msg_size=65_536)
        await subscriber.prepare(request)
        self.sent = self.passed = int(request.query.get("cursor", "0"))
        self.subscribers += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                pump = tasks.create_task(self._pump(request, host, subscriber))
                async for _ in subscriber:
                    pass  # a subscriber has nothing to say; reading tells when it leaves
                pump.cancel()
        finally:
            self.subscribers -= 1
        return subscriber

    async def _pump(
        self, request: web.Request, host: ClientConnection, subscriber: web.WebSocketResponse
    ) -> None:
        with contextlib.suppress(ConnectionError):
            with contextlib.suppress(ConnectionClosed):
                await self._forward(host, subscriber)
            code = host.close_code or ABNORMAL
            if code == ABNORMAL:
                _cut(request)
            else:
                await subscriber.close(code=code, message=(host.close_reason or "").encode())

    async def _forward(self, host: ClientConnection, subscriber: web.WebSocketResponse) -> None:
        while True:
            await self._is_open.wait()
            frame = await host.recv(decode=False)
            assert isinstance(frame, bytes)
            seq = read_frame(frame)[1].get("seq")
            copies = 1 if seq is None else await self._relay.copies(self._number, seq)
            for _ in range(copies):
                await subscriber.send_bytes(frame)
            if seq is not None:
                self.sent = seq if copies else self.sent
                self.passed = seq


def _cut(request: web.Request) -> web.Response:
    """Cut a connection in the middle, as a host that is not there."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
