"""Accounts move, rotate keys, go and come back in every possible order; all end as they should."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sync.simnet import Simnet
from tests.integration.lives import Life, all_orders, begin, block_orders, end
from tests.integration.rig import rig_on

pytestmark = pytest.mark.timeout(600)

HOMES = (0, 1, 2)


def sources_of(net: Simnet, kind: str) -> list[tuple[str, str]]:
    """Return the relay, or the hosts that accounts move between."""
    if kind == "relay":
        return [(net.relay_url, "relay")]
    return [(net.pds_urls[home].replace("http://", "ws://"), "pds") for home in HOMES]


@pytest.mark.scenario("A-53")
@pytest.mark.rule("AC-03", "AC-06", "AC-07", "MG-01", "MG-02", "MG-04", "MG-06", "D-11", "D-15")
@pytest.mark.parametrize("kind", ["relay", "pds"])
async def test_every_order_ends_as_the_honest_world(
    clone: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.resolver.LOOKUPS_PER_S", 10_000.0)
    monkeypatch.setattr("sync.handles.LOOKUPS_PER_S", 10_000.0)
    # Else a handle that pointed nowhere for a moment is looked up again a minute later.
    monkeypatch.setattr("sync.identities.HANDLE_MAX_AGE_S", 0.0)
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


@pytest.mark.rule("AC-01", "AC-02", "AC-04", "AC-05", "AC-15", "MG-01", "MG-04", "MG-05", "IN-03")
@pytest.mark.parametrize("kind", ["relay", "pds"])
async def test_every_order_of_a_did_web_is_right_after_each_step(
    clone: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.resolver.LOOKUPS_PER_S", 10_000.0)
    monkeypatch.setattr("sync.handles.LOOKUPS_PER_S", 10_000.0)
    monkeypatch.setattr("sync.identities.HANDLE_MAX_AGE_S", 0.0)
    chosen = block_orders()
    print(f"{len(chosen)} orders")
    assert len(chosen) == 120 + 38  # that live on: 5!; that are deleted: 4! + 2 * 3! + 2!
    # A did:web is the name of a host, which goes on serving the document of who has moved.
    async with Simnet(seed=82, pds_count=len(HOMES) + len(chosen), start_us=None) as net:
        bases = tuple(net.pds_urls[: len(HOMES)])
        async with rig_on(net, clone, tmp_path, handle_base_urls=bases) as rig:
            lives = web_lives(net, chosen)
            watch = await begin(rig, lives, sources=sources_of(net, kind))
            for _ in range(max(map(len, chosen))):
                for life in lives:
                    life.play()
                await watch.settle(timeout_s=120)
            fold = await end(rig, lives, watch)
            for life in lives:  # each change once, and no flapping in between
                assert fold.told[life.account.did] == life.stood, life


def web_lives(net: Simnet, chosen: Sequence[str]) -> list[Life]:
    """Make an account for each order that has moved away from the host it is named after."""
    lives = []
    for number, order in enumerate(chosen):
        pds = len(HOMES) + number
        account = net.create_account(f"w{number}.test", pds=pds, method="web")
        account.move_account(number % len(HOMES))
        lives.append(Life(account, order, number, homes=HOMES))
    return lives
