"""A repo with more collections than is accepted: refused whole, and loaded once it has fewer."""

from pathlib import Path

import pytest

from sync.simnet import Simnet
from sync.simnet.repo import Write
from tests.integration.rig import NOTE, note, rig_on

pytestmark = pytest.mark.timeout(120)

QUOTA = 1_000


@pytest.mark.rule("OP-03", "FA-09")
async def test_a_crowded_repo_fails_whole_and_loads_when_it_is_smaller(clone, tmp_path: Path):
    async with Simnet(seed=71, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test", records={f"{NOTE}/a": note("one")})
        crowd = {f"com.example.c{n}/a": note(str(n)) for n in range(QUOTA + 1)}
        mallory = net.create_account("mallory.test", records=crowd)
        rig.start()
        await rig.track(alice, mallory, collections=["com.example.*"])
        query = "select error from sync.repo_status where did = $1 and sync_state = 'failed'"
        error = await rig.until(lambda: rig.conn.fetchval(query, mallory.did))
        assert error == "too_many_collections"
        await rig.level(alice)
        assert await rig.stored(mallory) == {}
        assert (await rig.problems())["fetch_too_many_collections"] >= 1
        mallory.apply_writes([Write.delete("com.example.c7", "a")])
        await rig.level(mallory)
