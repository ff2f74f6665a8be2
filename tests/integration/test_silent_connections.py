"""Connections that look alive and bring nothing: noticed, given up, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request

from sync import firehose
from sync.http import HttpClient
from sync.lanes import QUIET_START_S
from sync.progress import SourceProgress
from sync.simnet import Account, Simnet
from sync.stream import FrameQueue, StreamState
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = [pytest.mark.timeout(120), pytest.mark.rule("CU-15")]


class Cable:
    """What lies between a service and a relay; it can go dead without anybody hanging up."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname, parts.port
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self.connections = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Accept connections until the end of the block; yields the URL."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.go_dead()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for end in self._ends:
                end.transport.abort()
                with suppress(ConnectionError):
                    await end.wait_closed()
            server.close()
            await server.wait_closed()

    def go_dead(self) -> None:
        """Pass nothing on any more, on the connections there are."""
        for task in self._tasks:
            task.cancel()

    async def _connect(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, out = await asyncio.open_connection(*self._target)
        self._ends += [out, back]
        for reader, writer in ((near, out), (far, back)):
            task = asyncio.ensure_future(self._pass_on(reader, writer))
            self._tasks.add(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.close()


async def follow(rig: Rig, net: Simnet, relay_url: str) -> Account:
    """Follow one account over a relay's URL."""
    alice = net.create_account("alice.test")
    rig.start([(relay_url, "relay")])
    await rig.track(alice)
    await rig.level(alice)
    alice.create(NOTE, note("heard"))
    await rig.level(alice)
    return alice


@pytest.mark.rule("ES-17")
async def test_a_connection_whose_other_end_is_gone_is_given_up(
    clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(firehose, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(firehose, "PING_TIMEOUT_S", 2.0)
    async with Simnet(seed=71, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        cable = Cable(net.relay_url)
        async with cable.laid() as url:
            alice = await follow(rig, net, url)
            before = cable.connections
            cable.go_dead()
            alice.create(NOTE, note("said into a dead cable"))
            await rig.level(alice)
            assert cable.connections > before
            await rig.stop()


@pytest.mark.rule("ES-17")
async def test_a_connection_that_brings_nothing_is_given_up(
    clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Longer than a silent source needs to be given a cursor, without which nothing is fetched.
    monkeypatch.setattr(firehose, "IDLE_TIMEOUT_S", 4 * QUIET_START_S)
    async with Simnet(seed=72, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        cable = Cable(net.relay_url)
        async with cable.laid() as url:
            await follow(rig, net, url)
            before = cable.connections

            async def connects_anew() -> bool:
                return cable.connections > before + 1

            await rig.until(connects_anew)
            await rig.stop()


async def test_a_connection_that_is_given_up_while_it_opens_is_not_read():
    queue = FrameQueue(max_frames=10, max_bytes=1_000)

    def give_up(_socket: ServerConnection, _request: Request) -> None:
        queue.give_up_connection()  # a lane was added that begins further back

    async def stream(socket: ServerConnection) -> None:
        await socket.wait_closed()  # and nothing comes that would be refused

    async with (
        serve(stream, "127.0.0.1", 0, process_request=give_up) as server,
        HttpClient(user_agent="test", allow_private_hosts=True) as http,
    ):
        (listening,) = server.sockets
        reader = firehose.FirehoseReader(
            f"ws://127.0.0.1:{listening.getsockname()[1]}",
            state=StreamState(None),
            queue=queue,
            policy=http.policy,
            user_agent="test",
            progress=SourceProgress("test", "relay"),
        )
        async with asyncio.timeout(50):
            assert await reader._read_connection(7, queue.connection) == 0
