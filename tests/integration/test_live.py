"""The stream end to end: from signed frames on a socket to rows and changes."""

from pathlib import Path

import pytest

from sync.simnet import Simnet
from tests.integration.rig import NOTE, note, rig_on


@pytest.mark.rule("BF-01", "BF-02")
async def test_a_tracked_repo_is_backfilled_and_then_follows_the_stream(clone, tmp_path: Path):
    async with Simnet(seed=11, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("before"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.create(NOTE, note("live"), rkey="b")
        alice.update(NOTE, note("changed"), rkey="a")
        alice.delete(NOTE, "b")
        await rig.level(alice)
        assert await rig.changes(alice) == []
        await rig.stop()
