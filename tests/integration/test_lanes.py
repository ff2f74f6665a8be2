"""Several lanes of one source, in processes of their own: shares, crashes, another number."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from sync import lane_handle
from sync.lanes import lane_of
from sync.simnet import Account, Simnet
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

LANES = 3


async def follow(rig: Rig, net: Simnet, count: int = 9) -> list[Account]:
    """Track accounts that fall into every lane, and wait until they are level."""
    accounts = [net.create_account(f"a{number}.test") for number in range(count)]
    assert len({lane_of(account.did, LANES) for account in accounts}) == LANES
    rig.start()
    await rig.track(*accounts)
    await rig.level(*accounts)
    return accounts


def lane_pids() -> list[int]:
    """Return the lane processes of this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"sync.lane_process" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def cursors(rig: Rig) -> list[tuple[int, int, int | None]]:
    """Return epoch, lane and seq of every cursor."""
    rows = await rig.conn.fetch("select lane_epoch, lane, seq from sync.cursors order by 1, 2")
    return [tuple(row) for row in rows]


async def write_everywhere(accounts: list[Account], text: str) -> None:
    """Have every account commit a few times."""
    for number in range(5):
        for account in accounts:
            account.create(NOTE, note(text), rkey=f"{text}-{number}")


@pytest.mark.rule("MT-04")
async def test_every_lane_has_its_share_and_no_change_is_lost_or_doubled(clone, tmp_path: Path):
    async with Simnet(seed=51, start_us=None) as net, rig_on(net, clone, tmp_path, lanes=3) as rig:
        accounts = await follow(rig, net)
        await write_everywhere(accounts, "live")
        await rig.level(*accounts)
        for account in accounts:
            told = Counter(
                change[1] for change in await rig.changes(account) if change[0] == "create"
            )
            assert told == {f"live-{number}": 1 for number in range(5)}
        assert "chain_break" not in await rig.problems(), "a repo's commits came in order"
        await rig.stop()


@pytest.mark.rule("CU-14", "D-13")
async def test_the_cursor_of_a_lane_without_events_moves_with_the_others(clone, tmp_path: Path):
    async with Simnet(seed=52, start_us=None) as net, rig_on(net, clone, tmp_path, lanes=3) as rig:
        accounts = await follow(rig, net)
        for number in range(20):
            accounts[0].create(NOTE, note("busy"), rkey=f"r{number}")

        async def all_have_moved() -> bool:
            return {seq for _, _, seq in await cursors(rig)} == {net.world.relay.last_seq}

        await rig.until(all_have_moved)
        await rig.stop()


async def test_a_lane_that_dies_starts_over_from_its_cursor(clone, tmp_path: Path):
    async with Simnet(seed=53, start_us=None) as net, rig_on(net, clone, tmp_path, lanes=3) as rig:
        accounts = await follow(rig, net)
        for round_number in range(3):
            pids = lane_pids()
            await write_everywhere(accounts, f"k{round_number}")
            os.kill(pids[round_number], signal.SIGKILL)
            await rig.level(*accounts)
        for account in accounts:
            told = Counter(
                change[1] for change in await rig.changes(account) if change[0] == "create"
            )
            assert set(told.values()) == {1}
            assert len(told) == 15
        await rig.stop()


async def test_a_lane_that_takes_long_to_start_is_waited_for(clone, tmp_path: Path, monkeypatch):
    """On a busy machine many start at once; killed, they would do so for ever."""
    monkeypatch.setattr(lane_handle, "LEASE_S", 3.0)
    monkeypatch.setattr(lane_handle, "LANE_MODULE", "tests.integration.late_lane")
    async with (
        Simnet(seed=86, start_us=None) as net,
        rig_on(net, clone, tmp_path, lanes=1) as rig,
    ):
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)


async def test_another_number_of_lanes_goes_on_where_the_last_one_stopped(clone, tmp_path: Path):
    async with Simnet(seed=54, start_us=None) as net:
        async with rig_on(net, clone, tmp_path, lanes=3) as rig:
            accounts = await follow(rig, net)
            await write_everywhere(accounts, "three")
            await rig.crash()
        for lanes in (1, 4):
            async with rig_on(net, clone, tmp_path, lanes=lanes) as rig:
                await write_everywhere(accounts, f"with-{lanes}")
                rig.start()
                await rig.level(*accounts)
                assert len(await cursors(rig)) == lanes
                await rig.stop()
        for account in accounts:
            stored = account.leaves()
            assert len(stored) == 15


async def test_no_lane_outlives_its_service(clone, tmp_path: Path):
    async with Simnet(seed=55, start_us=None) as net, rig_on(net, clone, tmp_path, lanes=2) as rig:
        await follow_one(rig, net)

        async def both_run() -> bool:  # who needs one to be level does not wait for the other
            return len(lane_pids()) == 2

        await rig.until(both_run)
        await rig.stop()
        assert lane_pids() == []


async def test_a_lane_runs_our_code_also_where_another_sync_lies(
    clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sync").mkdir()
    (tmp_path / "sync" / "__init__.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "asyncpg.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    async with Simnet(seed=56, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        await follow_one(rig, net)
        await rig.stop()


async def follow_one(rig: Rig, net: Simnet) -> None:
    """Track one account."""
    alice = net.create_account("alice.test")
    rig.start()
    await rig.track(alice)
    await rig.level(alice)
