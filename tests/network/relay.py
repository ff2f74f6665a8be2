"""A small honest relay over real PDSes: their events in one stream, with seqs of its own."""

import asyncio
import contextlib
from typing import Any

from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from sync.atproto import cbor
from sync.atproto.envelope import skip_item
from sync.simnet.listener import Listener
from sync.simnet.stream import Stream
from sync.simnet.subscription import subscribe
from tests.network.script import Script

SUBSCRIBE_PATH = "/xrpc/com.atproto.sync.subscribeRepos"
MAX_FRAME_BYTES = 5_000_000
# A host that is away is asked again this soon.
RECONNECT_S = 0.05


class Relay:
    """Follows hosts for ever and lets itself be followed; the script strikes events out."""

    def __init__(self, hosts: list[str], script: Script) -> None:
        self.stream = Stream()
        self.subscribers = 0
        self._hosts = hosts
        self._script = script
        self._news = asyncio.Event()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._listener = Listener(self._build)

    @property
    def url(self) -> str:
        """Return where it listens."""
        return self._listener.url

    async def run(self) -> None:
        """Read every host until cancelled."""
        await self._listener.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, url in enumerate(self._hosts):
                    tasks.create_task(self._follow(number, url))
        finally:
            await self._listener.stop()

    def lose_history(self) -> None:
        """Begin at seq 1 again and cut everybody off, as after a restore from nothing."""
        old, self.stream = self.stream, Stream()
        old.kick()

    def hold(self) -> None:
        """Pass nothing on for a while; the doors wait for us."""
        self._is_open.clear()

    def go_on(self) -> None:
        """Pass everything on again."""
        self._is_open.set()

    async def copies(self, host: int, seq: int) -> int:
        """Say how often an event is passed on, waiting until it was told to us as well."""
        while (copies := self._script.copies(host, seq)) is None:
            self._news.clear()
            await self._news.wait()
        return copies

    def _build(self) -> web.Application:
        app = web.Application()
        app.router.add_get(SUBSCRIBE_PATH, self._subscribe)
        return app

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        self.subscribers += 1
        try:
            return await subscribe(request, self.stream)
        finally:
            self.subscribers -= 1

    async def _follow(self, number: int, url: str) -> None:
        while True:
            # It is stopped, or goes on without us in a moment.
            with contextlib.suppress(OSError, WebSocketException):
                await self._read(number, url)
            await asyncio.sleep(RECONNECT_S)

    async def _read(self, number: int, url: str) -> None:
        address = f"{url.replace('http', 'ws', 1)}{SUBSCRIBE_PATH}?cursor="
        async with connect(
            address + str(self._script.judged(number)),
            compression=None,
            max_size=MAX_FRAME_BYTES,
            proxy=None,
        ) as socket:
            async for frame in socket:
                assert isinstance(frame, bytes)
                await self._is_open.wait()
                self._take(number, frame)

    def _take(self, number: int, frame: bytes) -> None:
        header, body = read_frame(frame)
        seq = body.pop("seq", None)
        if seq is None:
            return  # an #info, or the error that ends a connection
        kind, did = header["t"], body["repo"] if "repo" in body else body["did"]
        for _ in range(self._script.judge(number, seq, kind, body)):
            self.stream.append(did, kind, body)
        self._news.set()


def read_frame(frame: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and body of a frame, as they can be written again."""
    middle = skip_item(frame, 0)
    return cbor.decode(frame[:middle]), cbor.decode(frame[middle:])
