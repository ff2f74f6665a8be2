"""The simulated relay's events over a wire that distorts them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from sync.simnet import Simnet


class Wire(bytes):
    """Bytes that are written as they are, without a frame around them."""


# A list is one message in fragments.
Sendable = bytes | str | list[bytes] | Wire
Frames = Iterable[Sendable]
Distort = Callable[[int, bytes], Frames]


@asynccontextmanager
async def relay_of(
    net: Simnet, distort: Distort, *, cursors: list[int] | None = None
) -> AsyncIterator[str]:
    """Serve the simulated relay's events through a function; yields the URL.

    The cursor of each connection is appended to `cursors`.
    """
    wakes: list[asyncio.Event] = []
    is_closing = asyncio.Event()

    def wake_all() -> None:
        for wake in wakes:
            wake.set()

    async def stream(socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        cursor = int(query.get("cursor", ["0"])[0])
        if cursors is not None:
            cursors.append(cursor)
        wake = asyncio.Event()
        wakes.append(wake)
        try:
            # One that was cut off still waits here; what it is woken for is not sent.
            while not is_closing.is_set() and socket.state is State.OPEN:
                wake.clear()
                for event in net.world.relay.after(cursor):
                    for frame in distort(event.seq, event.frame):
                        await _send(socket, frame)
                    cursor = event.seq
                await wake.wait()
        except ConnectionClosed:
            return
        finally:
            wakes.remove(wake)

    server: Server
    with net.world.relay.listening(wake_all):
        async with serve(stream, "127.0.0.1", 0, max_size=None, compression=None) as server:
            (listening,) = server.sockets
            try:
                yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                is_closing.set()
                wake_all()


async def _send(socket: ServerConnection, frame: Sendable) -> None:
    if isinstance(frame, Wire):
        socket.transport.write(frame)
    else:
        await socket.send(frame)
