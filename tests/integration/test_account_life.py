"""Accounts move, rotate keys, go and come back in every possible order; all end as they should."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sync.simnet import Simnet
from tests.integration.lives import Fold, Life, Watch, all_orders, shown
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(300)

HOMES = (0, 1, 2)


def sources_of(net: Simnet, kind: str) -> list[tuple[str, str]]:
    """Return the relay, or the hosts that accounts move between."""
    if kind == "relay":
        return [(net.relay_url, "relay")]
    return [(net.pds_urls[home].replace("http://", "ws://"), "pds") for home in HOMES]


async def begin(rig: Rig, lives: Sequence[Life], *, sources: list[tuple[str, str]]) -> Watch:
    """Give every account a record, and load them all."""
    for life in lives:
        life.account.create(NOTE, note("first"), rkey="first")
        life.account.create(NOTE, note("kept"), rkey="kept")
    await rig.conn.execute("select sync.create_consumer('life')")
    rig.start(sources)
    await rig.track(*(life.account for life in lives))
    watch = Watch(rig, lives)
    await watch.settle(timeout_s=60)
    return watch


async def end(rig: Rig, lives: Sequence[Life], watch: Watch) -> None:
    """Compare everything with the honest world."""
    await watch.settle(timeout_s=90)
    fold = Fold()
    await fold.read(rig, "life")
    assert {did: copy for did, copy in fold.records.items() if copy} == await shown(rig)
    for life in lives:
        honest = (life.status is None, life.status)
        assert fold.standing.get(life.account.did, (True, None)) == honest, life
    await rig.stop()


@pytest.mark.rule("AC-03", "AC-06", "AC-07", "MG-01", "MG-02", "MG-04", "MG-06", "D-11", "D-15")
@pytest.mark.parametrize("kind", ["relay", "pds"])
async def test_every_order_ends_as_the_honest_world(
    clone: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.resolver.LOOKUPS_PER_S", 10_000.0)
    chosen = all_orders()
    print(f"{len(chosen)} orders")
    assert len(chosen) == 509
    async with (
        Simnet(seed=81, pds_count=len(HOMES), start_us=None) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        lives = [
            Life(net.create_account(f"a{number}.test", pds=number % 3), order, number, homes=HOMES)
            for number, order in enumerate(chosen)
        ]
        watch = await begin(rig, lives, sources=sources_of(net, kind))
        for _ in range(max(map(len, chosen))):
            for life in lives:
                life.play()
                await asyncio.sleep(0)
        await end(rig, lives, watch)
