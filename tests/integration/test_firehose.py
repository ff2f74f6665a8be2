"""A relay that misbehaves on the wire: the service gets past it and loses nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from sync.atproto.frame import MAX_FRAME_BYTES, write_frame
from sync.simnet import Simnet
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

Frames = Iterable[bytes | str]


@asynccontextmanager
async def relay_of(
    net: Simnet, distort: Callable[[int, bytes], Frames], *, cursors: list[int] | None = None
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
            while not is_closing.is_set():
                wake.clear()
                for event in net.world.relay.after(cursor):
                    for frame in distort(event.seq, event.frame):
                        await socket.send(frame)
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


async def follow(rig: Rig, net: Simnet, relay_url: str) -> None:
    """Load an account and have it commit on both sides of a bad frame."""
    alice = net.create_account("alice.test")
    rig.start([(relay_url, "relay")])
    await rig.track(alice)
    await rig.level(alice)
    for number in range(6):
        alice.create(NOTE, note(str(number)), rkey=f"r{number}")
    await rig.level(alice)


@pytest.mark.parametrize(
    "poison",
    [b"", b"\xff\xff\xff", "text", write_frame("#identity", {}) + b"\x00"],
    ids=["empty", "no CBOR", "text", "three objects"],
)
@pytest.mark.rule("ES-12", "ES-13", "D-02", "A-02", "A-04")
async def test_a_poison_frame_costs_three_connections_and_no_event(clone, tmp_path: Path, poison):
    async with Simnet(seed=95, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        seen: list[int] = []

        def distort(seq: int, frame: bytes) -> Frames:
            if seq == 6:
                seen.append(seq)
                return [poison, frame]
            return [frame]

        async with relay_of(net, distort) as url:
            await follow(rig, net, url)

            async def is_passed_over() -> bool:  # by the first lane; the others go on meanwhile
                return "poison_frame" in await rig.problems()

            await rig.until(is_passed_over)
            assert len(seen) == 3
            await rig.crash()


@pytest.mark.rule("ES-08")
async def test_an_error_frame_ends_the_connection_although_the_server_goes_on(
    clone, tmp_path: Path
):
    async with Simnet(seed=94, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        cursors: list[int] = []
        told_to: list[int] = []

        def distort(seq: int, frame: bytes) -> Frames:
            if seq != 6 or told_to:
                return [frame]
            told_to.append(len(cursors))
            return [write_frame("error", {"error": "Odd"}), frame]

        async with relay_of(net, distort, cursors=cursors) as url:
            await follow(rig, net, url)
            assert (await rig.problems())["error_frame"] == 1

            async def is_connected_again() -> bool:
                return [len(cursors)] > told_to

            await rig.until(is_connected_again)
            await rig.crash()


@pytest.mark.rule("ES-15", "ES-16", "A-01")
async def test_a_frame_over_the_limit_is_never_received_and_stepped_past(clone, tmp_path: Path):
    async with Simnet(seed=96, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:

        def distort(seq: int, frame: bytes) -> Frames:
            return [bytes(MAX_FRAME_BYTES + 1)] if seq == 6 else [frame]

        async with relay_of(net, distort) as url:
            await follow(rig, net, url)
            assert "frame_too_big" not in await rig.problems()  # nobody came to read it
            await rig.crash()


@pytest.mark.rule("CU-02", "CU-03", "A-07", "ES-09", "ES-10", "ES-11", "A-03")
async def test_repetitions_and_unknown_frames_change_nothing(clone, tmp_path: Path):
    async with Simnet(seed=97, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:

        def distort(seq: int, frame: bytes) -> Frames:
            return [write_frame("#future", {"x": 1}), frame, frame]

        async with relay_of(net, distort) as url:
            await follow(rig, net, url)
            assert "unknown_message" in await rig.problems()
            await rig.crash()


@pytest.mark.rule("CU-11")
async def test_a_consumer_that_was_too_slow_comes_back(clone, tmp_path: Path):
    async with Simnet(seed=98, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.kick_consumers()
        alice.create(NOTE, note("after the kick"), rkey="a")
        await rig.level(alice)
        assert "error_frame" in await rig.problems()
