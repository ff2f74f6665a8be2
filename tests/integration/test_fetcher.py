"""Fetches that go wrong: what each answer of a PDS means for the repo and its host."""

import asyncio
from pathlib import Path

import pytest

from sync import fetcher
from sync.atproto.export import read_export
from sync.simnet import Account, Simnet
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)


async def failed_with(rig: Rig, account: Account, text: str) -> bool:
    """Tell whether the last fetch failed for a reason."""
    query = "select error from sync.repo_status where did = $1 and sync_state = 'failed'"
    return text in (await rig.conn.fetchval(query, account.did) or "")


async def retry(rig: Rig, account: Account) -> None:
    """Have a repo fetched again at once, as `standpipe resync` does."""
    await rig.conn.fetchval("select sync.resync_repos($1)", [account.did])


@pytest.mark.scenario("A-55", "A-40", "A-41")
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"status": 500}, "server_error"),
        ({"status": 429, "headers": {"retry-after": "120"}}, "rate_limited"),
        ({"status": 404}, "repo_not_found"),
        ({"cut_after_bytes": 60}, "unreachable"),
    ],
)
@pytest.mark.rule("AC-13", "BF-16", "CA-05")
async def test_a_failed_fetch_deletes_nothing_and_is_made_good(
    clone, tmp_path: Path, trouble, reason
):
    async with Simnet(seed=51, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        stored = await rig.stored(alice)
        net.fail_next("sync.getRepo", did=alice.did, **trouble)
        await retry(rig, alice)
        await rig.until(lambda: failed_with(rig, alice, reason))
        assert await rig.stored(alice) == stored
        assert any(name.startswith("fetch_") for name in await rig.problems())
        await retry(rig, alice)
        await rig.level(alice)


@pytest.mark.rule("FA-14", "BF-16")
async def test_an_export_that_breaks_the_verifier_fails_alone(clone, tmp_path: Path, monkeypatch):
    async with Simnet(seed=56, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice, mallory = net.create_account("alice.test"), net.create_account("mallory.test")

        def judge(file, did, key, **limits):
            if did == mallory.did:
                raise RecursionError
            return read_export(file, did, key, **limits)

        monkeypatch.setattr("sync.fetcher.read_export", judge)
        rig.start()
        await rig.track(mallory, alice)
        await rig.until(lambda: failed_with(rig, mallory, "unexpected_error"))
        await rig.level(alice)


@pytest.mark.rule("BF-16", "OP-02")
async def test_a_slow_host_takes_no_other_hosts_downloads(clone, tmp_path: Path):
    async with (
        Simnet(seed=57, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        slow = [net.create_account(f"slow{n}.test", pds=0) for n in range(12)]
        alice = net.create_account("alice.test", pds=1)
        net.fail_next("sync.getRepo", pds=0, delay_s=300, times=100)
        rig.start()
        await rig.track(*slow)

        async def are_waiting() -> bool:
            return rig.progress.fetches_running == len(slow)

        await rig.until(are_waiting)
        await rig.track(alice)
        await rig.level(alice)


@pytest.mark.scenario("A-55")
@pytest.mark.rule("BF-16", "OP-02")
async def test_two_hosts_at_a_crawl_take_no_other_hosts_downloads(
    clone, tmp_path: Path, monkeypatch
):
    """All places are taken by them, until they take too long."""
    monkeypatch.setattr(fetcher, "LONG_DOWNLOAD_S", 0.5)
    async with (
        Simnet(seed=77, start_us=None, pds_count=3) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        slow = [net.create_account(f"s{number}.test", pds=number % 2) for number in range(8)]
        held = [net.hold_get_repo(account.did) for account in slow]
        alice = net.create_account("alice.test", pds=2)
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(*slow)
        for hold in held:
            await hold.arrived.wait()
        await rig.track(alice)
        await rig.until(lambda: rig.is_level(alice))
        assert {await rig.state(account) for account in slow} == {"fetching"}
        for hold in held:
            hold.release()
        await rig.level(*slow)


@pytest.mark.rule("BF-16", "OP-02")
async def test_a_host_that_asks_for_a_pause_gets_it(clone, tmp_path: Path):
    async with Simnet(seed=52, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.fail_next("sync.getRepo", status=429, headers={"retry-after": "86400"})
        await retry(rig, alice)
        await rig.until(lambda: failed_with(rig, alice, "rate_limited"))
        wait_s = await rig.conn.fetchval(
            "select extract(epoch from max(ready_at) - now()) from sync.host_status where url <> ''"
        )
        assert 3000 < wait_s <= 3600


@pytest.mark.rule("AC-13", "AC-04")
async def test_a_deactivated_account_found_by_a_fetch_is_hidden(clone, tmp_path: Path):
    async with Simnet(seed=53, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.drop_next(1)
        alice.deactivate()
        await retry(rig, alice)
        await rig.until(lambda: status_is(rig, alice, "deactivated"))
        assert await rig.stored(alice) == {}


async def status_is(rig: Rig, account: Account, status: str) -> bool:
    """Tell whether an account is known to be in a status."""
    query = "select account_status from sync.repo_status where did = $1"
    return await rig.conn.fetchval(query, account.did) == status


@pytest.mark.rule("CA-14", "D-01")
async def test_a_repo_over_the_size_limit_fails_without_being_read(clone, tmp_path: Path):
    async with (
        Simnet(seed=54, start_us=None) as net,
        rig_on(net, clone, tmp_path, max_repo_bytes=2_000) as rig,
    ):
        alice = net.create_account("alice.test")
        for number in range(40):
            alice.create(NOTE, note("x" * 200 + str(number)))
        rig.start()
        await rig.track(alice)
        await rig.until(lambda: failed_with(rig, alice, "sends more than 2000 bytes"))
        assert await rig.stored(alice) == {}


@pytest.mark.rule("MG-02", "HO-06", "D-18", "IN-01")
async def test_a_migrated_account_is_fetched_from_its_new_host(clone, tmp_path: Path):
    async with (
        Simnet(seed=55, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        before = await rig.last_change()
        net.drop_next(20)  # nobody hears of the move
        alice.move_account(1, resign=True)
        alice.create(NOTE, note("from the new host"), rkey="b")
        await retry(rig, alice)
        await rig.level(alice)
        records = [one for one in await rig.changes(alice, after=before) if one[1]]
        assert [one[:2] for one in records] == [("create", "b")]
        query = "select pds_url from sync.repo_status where did = $1"
        assert await rig.conn.fetchval(query, alice.did) == net.pds_urls[1]
        assert rig.progress.fetches_failed == 0, "nobody asked the old one"


@pytest.mark.rule("AC-14", "D-16")
async def test_a_tombstoned_did_counts_as_deleted(clone, tmp_path: Path):
    async with Simnet(seed=56, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.delete_account(tombstone=True)
        await rig.until(lambda: status_is(rig, alice, "deleted"))
        assert await rig.stored(alice) == {}


@pytest.mark.rule("FA-12", "AC-10", "IN-14")
async def test_a_directory_that_is_away_says_nothing_of_an_account(clone, tmp_path: Path):
    async with Simnet(seed=58, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        stored = await rig.stored(alice)
        await net.stop_server("plc")
        await retry(rig, alice)
        await rig.until(lambda: failed_with(rig, alice, "identity_transient"))
        assert await rig.conn.fetchval("select is_active from sync.repos")
        assert await rig.stored(alice) == stored


@pytest.mark.rule("AC-11", "MG-03", "D-12")
async def test_an_old_host_has_no_say_over_an_account_that_moved(clone, tmp_path: Path):
    async with (
        Simnet(seed=57, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start([(url.replace("http", "ws"), "pds") for url in net.pds_urls])
        await rig.track(alice)
        await rig.level(alice)
        alice.move_account(1, resign=True)
        alice.create(NOTE, note("two"), rkey="b")
        await rig.level(alice)
        await rig.until(lambda: has_read(rig, net.world.hosts[0].stream.last_seq))
        assert await rig.is_level(alice)
        assert await rig.conn.fetchval("select is_active from sync.repos")


async def has_read(rig: Rig, seq: int) -> bool:
    """Tell whether the first source's events up to here are applied."""
    query = "select seq >= $1 from sync.source_status order by source_id limit 1"
    return bool(await rig.conn.fetchval(query, seq))


@pytest.mark.parametrize("has_failed", [False, True], ids=["export", "failure"])
async def test_an_app_that_idles_on_one_repo_keeps_no_other_waiting(
    clone, session, tmp_path: Path, has_failed
):
    async with Simnet(seed=58, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice, bob = net.create_account("alice.test"), net.create_account("bob.test")
        for account in (alice, bob):
            account.create(NOTE, note("one"), rkey="a")
        held = net.hold_get_repo(alice.did)
        if has_failed:
            net.fail_next("sync.getRepo", did=alice.did, status=500)
        rig.start()
        app = session(autocommit=False)
        await rig.track(alice)
        if not has_failed:
            await held.arrived.wait()
        await rig.until(lambda: is_claimed(rig, alice))
        # In a thread: the service lives in this event loop, and may hold that row for a moment.
        lock = "select from sync.repos where did = %s for update"
        await asyncio.to_thread(app.execute, lock, [alice.did])
        held.release()
        await rig.track(bob)
        await rig.level(bob)
        app.rollback()
        await retry(rig, alice)
        await rig.level(alice)


async def is_claimed(rig: Rig, account: Account) -> bool:
    """Tell whether a repo is being fetched or was."""
    return await rig.state(account) not in {None, "pending"}
