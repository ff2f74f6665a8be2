"""A relay that misbehaves on the wire: the service gets past it and loses nothing."""

import asyncio
from pathlib import Path

import pytest

from sync.atproto.frame import write_frame
from sync.simnet import Simnet
from tests.integration.rig import NOTE, note, rig_on
from tests.integration.wire import Frames, relay_of

pytestmark = pytest.mark.timeout(120)


@pytest.mark.rule("FA-13", "MT-01")
async def test_strangers_that_are_malformed_are_counted_together(clone, tmp_path: Path):
    """A host may send as many DIDs as it can think of."""
    async with Simnet(seed=94, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:

        def distort(seq: int, frame: bytes) -> Frames:
            stranger = {"did": f"did:web:s{seq}.example.com", "seq": seq}
            return [write_frame("#identity", stranger), frame]

        async with relay_of(net, distort) as url:
            alice = net.create_account("alice.test")
            rig.start([(url, "relay")])
            await rig.track(alice)
            await rig.level(alice)
            for number in range(6):
                alice.create(NOTE, note(str(number)), rkey=f"r{number}")
            await rig.level(alice)
            strangers = "select did from sync.problems where did like 'did:web:s%'"
            assert await rig.conn.fetch(strangers) == []
            assert "bad_field" in await rig.problems()
            await rig.crash()


@pytest.mark.rule("CU-11", "ES-08")
async def test_a_consumer_that_was_too_slow_comes_back(clone, tmp_path: Path):
    async with Simnet(seed=98, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.kick_consumers()
        alice.create(NOTE, note("after the kick"), rkey="a")
        await rig.level(alice)

        async def is_counted() -> bool:
            return "error_frame" in await rig.problems()

        await rig.until(is_counted)


@pytest.mark.rule("ES-08")
async def test_an_error_frame_ends_the_connection_although_the_server_goes_on(
    clone, tmp_path: Path
):
    async with Simnet(seed=98, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        cursors: list[int] = []
        told_to: list[int] = []
        is_live = asyncio.Event()

        def distort(_seq: int, frame: bytes) -> Frames:
            if told_to or not is_live.is_set():
                return [frame]
            told_to.append(len(cursors))
            return [write_frame("error", {"error": "Odd"}), frame]

        async def is_told_and_connected_again() -> bool:
            return [len(cursors)] > told_to and "error_frame" in await rig.problems()

        async with relay_of(net, distort, cursors=cursors) as url:
            alice = net.create_account("alice.test")
            rig.start([(url, "relay")])
            await rig.track(alice)
            await rig.level(alice)
            is_live.set()
            for number in range(6):
                alice.create(NOTE, note(str(number)), rkey=f"r{number}")
            await rig.level(alice)
            await rig.until(is_told_and_connected_again)
            await rig.crash()
