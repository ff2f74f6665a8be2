"""First loads, and the cut-over from an export to the stream."""

import asyncio
from pathlib import Path

import pytest

from sync.simnet import Simnet
from sync.simnet.traffic import generate
from tests.integration.rig import LIKE, NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)


@pytest.mark.scenario("A-48")
@pytest.mark.rule("BF-02", "BF-08", "BF-10")
async def test_commits_during_a_fetch_are_held_and_applied_after_it(clone, tmp_path: Path):
    async with Simnet(seed=31, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        hold = net.hold_get_repo(alice.did)
        rig.start()
        await rig.track(alice)
        await asyncio.wait_for(hold.arrived.wait(), 60)
        alice.create(NOTE, note("two"), rkey="b")
        alice.delete(NOTE, "a")
        await rig.until(lambda: holds(rig, 2))
        assert await rig.state(alice) == "fetching"
        hold.release()
        await rig.level(alice)
        assert await rig.changes(alice) == [
            *[change for change in await rig.changes(alice) if change[1] is None],
            ("create", "b", True),
            ("delete", "a", True),
        ]


async def holds(rig: Rig, events: int) -> bool:
    """Tell whether this many events wait for a fetch."""
    return await rig.conn.fetchval("select sum(held_events) from sync.repo_status") == events


@pytest.mark.rule("MS-11")
@pytest.mark.scenario("A-46")
async def test_an_empty_repo_is_loaded_as_empty_and_filled_live(clone, tmp_path: Path):
    async with Simnet(seed=32, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.create(NOTE, note("first"), rkey="a")
        await rig.level(alice)
        alice.delete(NOTE, "a")
        await rig.level(alice)


@pytest.mark.slow
async def test_many_repos_of_several_hosts_are_loaded_while_they_commit(clone, tmp_path: Path):
    async with (
        Simnet(seed=33, start_us=None, pds_count=3) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        accounts = generate(net.world, 40, 30)
        rig.start()
        await rig.track(*accounts)
        for account in accounts[:10]:
            account.create(NOTE, note("meanwhile"), rkey="late")
        await rig.level(*accounts)


@pytest.mark.scenario("A-51")
@pytest.mark.rule("BF-14")
async def test_a_crash_during_a_fetch_loses_nothing_that_was_held(clone, tmp_path: Path):
    async with Simnet(seed=34, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        hold = net.hold_get_repo(alice.did)
        rig.start()
        await rig.track(alice)
        await asyncio.wait_for(hold.arrived.wait(), 60)
        alice.create(NOTE, note("two"), rkey="b")
        await rig.until(lambda: holds(rig, 1))
        await rig.crash()
        hold.release()
        rig.start()
        await rig.level(alice)


@pytest.mark.scenario("A-50")
@pytest.mark.rule("BF-13")
async def test_an_account_switched_off_during_its_fetch_stays_hidden(clone, tmp_path: Path):
    async with Simnet(seed=35, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        hold = net.hold_get_repo(alice.did)
        rig.start()
        await rig.track(alice)
        await asyncio.wait_for(hold.arrived.wait(), 60)
        alice.deactivate()
        await rig.until(lambda: is_inactive(rig, alice))
        hold.release()
        await rig.until(lambda: no_fetches(rig))
        assert await rig.stored(alice) == {}
        alice.activate()
        await rig.level(alice)


async def is_inactive(rig: Rig, account) -> bool:
    """Tell whether upstream's word on the account is no."""
    query = "select not is_active from sync.repo_status where did = $1"
    return bool(await rig.conn.fetchval(query, account.did))


async def no_fetches(rig: Rig) -> bool:
    """Tell whether the service has nothing to fetch in hand."""
    return rig.progress.fetches_running == 0


@pytest.mark.scenario("A-49")
@pytest.mark.rule("BF-11", "D-19")
async def test_a_stale_export_is_not_taken_for_the_present(clone, tmp_path: Path):
    async with Simnet(seed=36, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.serve_stale_export(alice.did, commits_behind=1)
        net.drop_next(1)
        alice.create(NOTE, note("two"), rkey="b")
        alice.create(NOTE, note("three"), rkey="c")
        await rig.until(lambda: was_stale(rig, alice))
        assert await rig.state(alice) == "desynchronized"
        await rig.conn.fetchval("select sync.resync_repos($1)", [alice.did])
        await rig.level(alice)


async def was_stale(rig: Rig, account) -> bool:
    """Tell whether the last export was found to be older than what we had seen."""
    query = "select error from sync.repo_status where did = $1"
    return await rig.conn.fetchval(query, account.did) == "stale_export"


@pytest.mark.scenario("A-49")
@pytest.mark.rule("BF-12", "CA-19")
async def test_an_export_older_than_the_head_changes_nothing(clone, tmp_path: Path):
    async with Simnet(seed=37, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        alice.create(NOTE, note("two"), rkey="b")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        before, stored = await rig.last_change(), await rig.stored(alice)
        net.serve_stale_export(alice.did, commits_behind=1)
        await rig.conn.fetchval("select sync.resync_repos($1)", [alice.did])
        await rig.until(lambda: was_stale(rig, alice))
        assert await rig.stored(alice) == stored
        assert await rig.last_change() == before


async def test_a_wider_filter_loads_what_was_left_out(clone, tmp_path: Path):
    async with Simnet(seed=38, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        alice.create(LIKE, {"$type": LIKE, "subject": "x"}, rkey="b")
        rig.start()
        await rig.track(alice, collections=[NOTE])
        await rig.until(lambda: has_records(rig, alice, 1))
        await rig.conn.fetchval("select sync.track_collections($1)", ["com.example.*"])
        await rig.level(alice)


async def has_records(rig: Rig, account, count: int) -> bool:
    """Tell whether this many records of an account are shown."""
    return len(await rig.stored(account)) == count
