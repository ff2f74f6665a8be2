"""After a lost window every tracked repo is compared, and what differs is fetched."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from sync import gaps
from sync.gaps import Gap, GapCloser
from sync.progress import Progress
from sync.resolver import Resolver
from sync.simnet import Account, Simnet
from sync.simnet.traffic import generate
from tests.integration.rig import NOTE, Rig, note, rig_on
from tests.sql.driver import Driver, did
from tests.unit.test_gaps import Directory, Pds

pytestmark = pytest.mark.timeout(120)


async def follow_alice(rig: Rig, net: Simnet) -> Account:
    """Follow one account with one record."""
    alice = net.create_account("alice.test")
    alice.create(NOTE, note("one"), rkey="a")
    rig.start()
    await rig.track(alice)
    await rig.level(alice)
    return alice


@pytest.mark.scenario("A-52", "A-06")
@pytest.mark.rule("CU-08", "CU-09")
async def test_missed_history_is_made_up_for_deletes_included(clone, tmp_path: Path):
    async with (
        Simnet(seed=41, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = net.create_account("alice.test")
        bob = net.create_account("bob.test", pds=1)
        for account in (alice, bob):
            account.create(NOTE, note("one"), rkey="a")
            account.create(NOTE, note("two"), rkey="b")
        rig.start()
        await rig.track(alice, bob)
        await rig.level(alice, bob)
        await rig.stop()
        before = await rig.last_change()
        alice.delete(NOTE, "a")
        alice.update(NOTE, note("two and a half"), rkey="b")
        alice.create(NOTE, note("three"), rkey="c")
        net.forget_history()
        rig.start()
        await rig.level(alice, bob)
        assert sorted(await rig.changes(alice, after=before)) == [
            ("create", "c", False),
            ("delete", "a", False),
            ("update", "b", False),
        ]
        assert await rig.changes(bob, after=before) == []


@pytest.mark.rule("CU-09")
async def test_what_a_stream_left_out_unnoticed_is_found_by_comparing(clone, tmp_path: Path):
    async with Simnet(seed=48, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await follow_alice(rig, net)
        net.drop_next(1)
        alice.delete(NOTE, "a")
        await rig.conn.fetchval("select sync.compare_repos()")
        await rig.level(alice)
        assert (await rig.changes(alice))[-1] == ("delete", "a", False)
        await rig.stop()


@pytest.mark.rule("CU-09", "MG-03", "D-11")
@pytest.mark.parametrize("leaves", [False, True])
async def test_who_moves_within_a_gap_is_asked_for_at_his_new_host(
    clone, tmp_path: Path, leaves: bool
):
    async with (
        Simnet(seed=49, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = await follow_alice(rig, net)
        await net.stop_server("relay")
        alice.move_account(1)
        alice.create(NOTE, note("two"), rkey="b")
        if leaves:
            alice.leave_host(0)
        net.forget_history()
        await net.start_server("relay")
        await rig.level(alice)
        query = "select is_active and pds_url = $1 from sync.repo_status"
        assert await rig.conn.fetchval(query, alice.host.url)
        await rig.stop()


@pytest.mark.rule("CU-07", "CU-08", "CU-09")
async def test_a_silent_source_is_compared_once_however_often_it_is_connected(
    clone, tmp_path: Path
):
    """All it has is old, so that its start cursor, 0, is outdated each time."""
    async with (
        Simnet(seed=52, start_us=None) as net,
        rig_on(net, clone, tmp_path, lanes=1) as rig,
    ):
        alice = net.create_account("alice.test")
        net.forget_history()
        rig.start()
        forget = "update sync.sources set compared_at = null"
        await rig.until(lambda: is_compared(rig))
        await rig.conn.execute(forget)
        await connect_again(rig, net)
        await rig.until(lambda: is_compared(rig))
        await rig.conn.execute(forget)
        for _ in range(2):
            await connect_again(rig, net)
        alice.create(NOTE, note("one"), rkey="a")
        query = "select seq > 0 from sync.source_status"
        await rig.until(lambda: rig.conn.fetchval(query))
        query = "select gap_since is null and compared_at is null from sync.sources"
        assert await rig.conn.fetchval(query)


async def is_compared(rig: Rig) -> bool:
    """Tell whether a gap was closed, and none is open."""
    query = "select gap_since is null and compared_at is not null from sync.sources"
    return bool(await rig.conn.fetchval(query))


async def connect_again(rig: Rig, net: Simnet) -> None:
    """Cut the connection, and wait for the first frame of the next one."""
    (source,) = rig.progress.sources.values()
    frames = source.frames
    await net.restart_relay()

    async def has_more() -> bool:
        return source.frames > frames

    await rig.until(has_more)


def closer_of(conn, http: Pds, directory: Directory) -> GapCloser:
    """Return a gap closer in a network that is made up."""
    return GapCloser(
        conn,
        http=http,
        resolver=cast("Resolver", directory),
        progress=Progress(),
        wake=asyncio.Event(),
        compare_every_s=1e9,
    )


@pytest.mark.rule("CU-09", "BF-16")
async def test_a_host_that_is_away_keeps_others_waiting_once_a_comparison(
    session, ingest, monkeypatch
):
    service = Driver(session())
    for number in (1, 2, 3):
        service.load(number, {"a": "x"}, at=10, data="t10")
    service.locate(1, 2, 3)
    service.value("select sync.note_gap(%s)", service.source_id)
    monkeypatch.setattr(gaps, "PAGE_REPOS", 1)
    http = Pds(is_away=True)
    gap = Gap(*service.row("select * from sync.open_gaps()").values())
    found = await closer_of(await ingest(), http, Directory())._compare_all([gap])
    assert found == {"https://pds.test": [did(1), did(2), did(3)]}
    assert http.asked == 1


@pytest.mark.rule("CU-09", "IN-14", "AC-10")
@pytest.mark.parametrize(("is_slow", "reason"), [(False, "transient"), (True, "")])
async def test_who_cannot_be_looked_up_now_is_asked_about_again(
    session, ingest, monkeypatch, is_slow, reason
):
    """Its PDS says that it is not active; whether that is its PDS still, nobody can say."""
    service = Driver(session())
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.locate(1)
    monkeypatch.setattr(gaps, "HOST_TIMEOUT_S", 0.5)
    directory = Directory(reason=reason, is_slow=is_slow)
    closer = closer_of(await ingest(), Pds(is_active=False), directory)
    hosts = {"https://pds.test": [did(1)]}
    assert await closer._compare_hosts(hosts) == hosts
    assert service.value("select is_active from sync.repos")


async def has_gap(rig: Rig) -> bool:
    """Tell whether a gap is open."""
    return not await rig.has_no_gap()


@pytest.mark.slow
@pytest.mark.rule("CU-09", "BF-18")
async def test_many_repos_of_one_host_are_compared_by_its_list(clone, tmp_path: Path):
    async with Simnet(seed=42, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        accounts = generate(net.world, 60, 3)
        rig.start()
        await rig.track(*accounts)
        await rig.level(*accounts)
        await rig.stop()
        changed = accounts[::15]
        for account in changed:
            account.create(NOTE, note("missed"), rkey="late")
        net.forget_history()
        rig.start()
        await rig.level(*accounts)
        await rig.fetched(len(changed))


@pytest.mark.rule("CU-09", "AC-10")
async def test_a_gap_stays_open_until_every_host_has_answered(clone, tmp_path: Path):
    async with Simnet(seed=43, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await follow_alice(rig, net)
        await rig.stop()
        alice.delete(NOTE, "a")
        net.forget_history()
        await net.stop_server("pds0")
        rig.start()
        await rig.until(lambda: has_gap(rig))
        await net.start_server("pds0")
        await rig.until(rig.has_no_gap)
        await rig.level(alice)


@pytest.mark.rule("CU-09", "MG-01", "MG-03")
async def test_a_move_that_was_missed_is_followed_by_the_comparison(clone, tmp_path: Path):
    async with (
        Simnet(seed=49, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = await follow_alice(rig, net)
        await rig.stop()
        alice.move_account(1)
        alice.leave_host(0)
        alice.create(NOTE, note("two"), rkey="b")
        net.forget_history()
        rig.start()
        await rig.level(alice)
        assert not await is_hidden(rig, alice)


@pytest.mark.rule("CU-09", "MG-03", "AC-10")
async def test_the_host_that_was_left_is_not_believed_while_the_new_one_is_away(
    clone, tmp_path: Path
):
    async with (
        Simnet(seed=51, start_us=None, pds_count=2) as net,
        rig_on(net, clone, tmp_path) as rig,
    ):
        alice = await follow_alice(rig, net)
        await rig.stop()
        before = await rig.last_change()
        await forget_lookups(rig)
        alice.move_account(1)
        alice.create(NOTE, note("two"), rkey="b")  # until then the head has the old signature
        net.forget_history()
        await net.stop_server("pds1")
        rig.start()
        await rig.until(lambda: has_gap(rig))
        await rig.until(lambda: has_moved(rig, net.pds_urls[1]))
        await net.start_server("pds1")
        await rig.until(rig.has_no_gap)
        await rig.level(alice)
        words = "select count(*) from sync.change_log where kind = 'account' and change_id > $1"
        assert await rig.conn.fetchval(words, before) == 0


async def forget_lookups(rig: Rig) -> None:
    """Let it be long since anybody was looked up: nobody is more than once a minute."""
    await rig.conn.execute("update sync.repos set identity_checked_at = null")


async def has_moved(rig: Rig, pds_url: str) -> bool:
    """Tell whether the only repo is known to live at a PDS."""
    return bool(await rig.conn.fetchval("select pds_url from sync.repos") == pds_url)


@pytest.mark.rule("CU-09", "MT-07")
async def test_a_handle_that_was_missed_is_found_by_the_comparison(clone, tmp_path: Path):
    async with Simnet(seed=50, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await follow_alice(rig, net)
        await rig.stop()
        await forget_lookups(rig)
        alice.change_handle("alicia.test")
        net.forget_history()
        rig.start()
        await rig.until(lambda: has_handle(rig, "alicia.test"))


async def has_handle(rig: Rig, handle: str) -> bool:
    """Tell whether the only repo has a handle."""
    return bool(await rig.conn.fetchval("select handle from sync.repos") == handle)


@pytest.mark.rule("AC-09", "CU-09")
async def test_a_status_that_was_missed_is_found_by_the_comparison(clone, tmp_path: Path):
    async with Simnet(seed=44, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await follow_alice(rig, net)
        await rig.stop()
        alice.deactivate()
        net.forget_history()
        rig.start()
        await rig.until(lambda: is_hidden(rig, alice))


async def is_hidden(rig: Rig, account) -> bool:
    """Tell whether no record of an account is shown."""
    return await rig.stored(account) == {}


@pytest.mark.rule("CU-10", "D-14", "ES-08")
@pytest.mark.scenario("A-05")
async def test_a_cursor_in_the_future_stops_the_source_until_it_is_rewound(clone, tmp_path: Path):
    async with Simnet(seed=45, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        await rig.stop()
        url = await rig.conn.fetchval("select url from sync.source_status")
        # As after a restore of the relay: our cursor is in its future.
        await rig.conn.execute(
            "update sync.cursors set seq = $1, token = nextval('sync_priv.tokens')", 10**9
        )
        rig.start()
        await rig.until(lambda: is_stopped(rig))
        error = await rig.conn.fetchval("select error from sync.source_status")
        assert error.startswith("FutureCursor")
        await rig.conn.fetchval("select sync.rewind_source($1, $2)", url, 0)
        await rig.conn.fetchval("select sync.add_source($1, 'relay')", url)
        alice.create(NOTE, note("again"), rkey="a")
        await rig.level(alice)


async def is_stopped(rig: Rig) -> bool:
    """Tell whether the source was switched off."""
    return not await rig.conn.fetchval("select is_enabled from sync.source_status")


@pytest.mark.rule("CU-12", "CU-18")
async def test_another_relay_has_a_cursor_of_its_own_and_everything_is_compared(
    clone, tmp_path: Path
):
    async with Simnet(seed=49, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await follow_alice(rig, net)
        await rig.stop()
        before = await rig.last_change()
        alice.delete(NOTE, "a")
        await rig.conn.fetchval("select sync.remove_source($1)", net.relay_url)
        rig.start([(net.relay_url.replace("127.0.0.1", "localhost"), "relay")])
        await rig.level(alice)
        assert await rig.changes(alice, after=before) == [("delete", "a", False)]
