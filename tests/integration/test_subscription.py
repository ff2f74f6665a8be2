"""The connection of a reader: what it sends, and where it may be sent."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from sync.atproto.frame import write_frame
from sync.firehose import FirehoseReader
from sync.http import HttpClient
from sync.progress import SourceProgress
from sync.stream import Frame, FrameQueue, StreamState

pytestmark = pytest.mark.timeout(60)


def reader_of(url: str, queue: FrameQueue, http: HttpClient) -> FirehoseReader:
    """Return a reader without a service around it."""
    return FirehoseReader(
        url,
        state=StreamState(None),
        queue=queue,
        policy=http.policy,
        user_agent="test",
        progress=SourceProgress(url, "relay"),
    )


@pytest.mark.rule("ES-18")
async def test_nothing_is_ever_sent_on_the_stream():
    heard: list[str | bytes] = []

    async def stream(socket: ServerConnection) -> None:
        for number in range(3):
            await socket.send(write_frame("#info", {"name": f"Notice{number}"}))
        heard.extend([message async for message in socket])

    queue = FrameQueue(max_frames=10, max_bytes=10_000)
    async with (
        serve(stream, "127.0.0.1", 0) as server,
        HttpClient(user_agent="test", allow_private_hosts=True) as http,
    ):
        (listening,) = server.sockets
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        reading = asyncio.create_task(reader_of(url, queue, http).run())
        async with asyncio.timeout(50):
            taken: list[Frame] = []
            while len(taken) < 3:
                taken += await queue.take(max_frames=3, max_bytes=10_000, timeout_s=0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert heard == []


@pytest.mark.rule("ES-20", "OP-01")
async def test_a_handshake_that_is_sent_elsewhere_is_not_followed():
    strangers: list[str] = []

    async def stream(socket: ServerConnection) -> None:
        strangers.append("reached")

    async with (
        serve(stream, "127.0.0.1", 0) as goal,
        HttpClient(user_agent="test", allow_private_hosts=True) as http,
    ):
        (elsewhere,) = goal.sockets
        location = f"ws://127.0.0.1:{elsewhere.getsockname()[1]}/"

        def redirect(socket: ServerConnection, _request: Request) -> Response:
            response = socket.respond(302, "")
            response.headers["Location"] = location
            return response

        async with serve(stream, "127.0.0.1", 0, process_request=redirect) as server:
            (listening,) = server.sockets
            url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
            reader = reader_of(url, FrameQueue(max_frames=1, max_bytes=1), http)
            async with asyncio.timeout(50):
                await reader._read_connection(None, 0)
    assert strangers == []
