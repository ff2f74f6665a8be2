"""Serve one event stream over a websocket: com.atproto.sync.subscribeRepos."""

import asyncio
import contextlib

from aiohttp import web

from sync.atproto.frame import write_frame
from sync.simnet.stream import Stream
from sync.simnet.xrpc import XrpcError

_REFUSED = 1008


async def subscribe(request: web.Request, stream: Stream) -> web.StreamResponse:
    """Send what the cursor asks for and then everything that happens, until somebody leaves."""
    cursor = _read_cursor(request)
    socket = web.WebSocketResponse(compress=False, max_msg_size=65_536)
    await socket.prepare(request)
    async with asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(_send_while_open(socket, stream, cursor))
        # Clients have nothing to say (ES-18); reading tells when they are gone.
        async for _ in socket:
            pass
        sender.cancel()
    return socket


def _read_cursor(request: web.Request) -> int | None:
    text = request.query.get("cursor")
    if text is None:
        return None
    if not text.isdecimal():
        raise XrpcError("InvalidRequest", "Error: cursor must be an integer")
    return int(text)


async def _send_while_open(
    socket: web.WebSocketResponse, stream: Stream, cursor: int | None
) -> None:
    with contextlib.suppress(ConnectionError):
        await _send(socket, stream, cursor)


async def _send(socket: web.WebSocketResponse, stream: Stream, cursor: int | None) -> None:
    news = asyncio.Event()
    kicks = stream.kicks
    with stream.listening(news.set):
        position = stream.last_seq if cursor is None else cursor
        if position > stream.last_seq:
            await _refuse(socket, "FutureCursor", "Cursor in the future.")
            return
        if position < stream.forgotten_seq:
            message = "Requested cursor exceeded limit. Possibly missing events"
            info = {"name": "OutdatedCursor", "message": message}
            await socket.send_bytes(write_frame("#info", info))
        while not socket.closed:
            news.clear()
            while events := stream.after(position):
                for event in events:
                    await socket.send_bytes(event.frame)
                position = events[-1].seq
            if stream.kicks != kicks:
                await _refuse(socket, "ConsumerTooSlow", "Stream consumer too slow")
                return
            await news.wait()


async def _refuse(socket: web.WebSocketResponse, error: str, message: str) -> None:
    await socket.send_bytes(write_frame("error", {"error": error, "message": message}))
    await socket.close(code=_REFUSED, message=b"Policy")
