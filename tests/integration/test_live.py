"""The stream end to end: from signed frames on a socket to rows and changes."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from sync.simnet import Simnet
from sync.simnet.repo import Write
from sync.tracking import Signer, TrackedRepos
from tests.integration.rig import LIKE, NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def owner(clone: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of the database."""
    conn = await asyncpg.connect(clone)
    yield conn
    await conn.close()


@pytest.mark.rule("BF-15")
async def test_a_tracked_repo_is_backfilled_and_then_follows_the_stream(clone, tmp_path: Path):
    async with Simnet(seed=11, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("before"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        before = await rig.last_change()
        alice.create(NOTE, note("live"), rkey="b")
        alice.update(NOTE, note("changed"), rkey="a")
        alice.apply_writes([Write.delete(NOTE, "b"), Write.create(NOTE, "c", note("three"))])
        await rig.level(alice)
        assert sorted(await rig.changes(alice, after=before)) == sorted(
            [
                ("create", "b", True),
                ("update", "a", True),
                ("delete", "b", True),
                ("create", "c", True),
            ]
        )
        await rig.stop()


@pytest.mark.rule("MT-11", "CU-14")
async def test_events_of_strangers_are_dropped_and_move_the_cursor(clone, tmp_path: Path):
    async with Simnet(seed=12, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice, bob = net.create_account("alice.test"), net.create_account("bob.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        for number in range(40):
            bob.create(NOTE, note(str(number)))
        await rig.until(lambda: cursor_is(rig, net.world.relay.last_seq))
        assert await rig.stored(bob) == {}
        # Nobody looked who signs for him.
        assert await rig.conn.fetch("select * from sync.problems where did = $1", bob.did) == []


async def cursor_is(rig: Rig, seq: int) -> bool:
    """Tell whether the durable cursor has reached a sequence number."""
    return await rig.conn.fetchval("select seq from sync.source_status") == seq


@pytest.mark.rule("BF-07")
async def test_records_outside_the_tracked_collections_are_not_stored(clone, tmp_path: Path):
    async with Simnet(seed=13, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("kept"), rkey="a")
        alice.create(LIKE, {"$type": LIKE, "subject": "x"}, rkey="b")
        rig.start()
        await rig.track(alice, collections=[NOTE])
        await rig.until(lambda: head_is_current(rig, alice))
        alice.create(LIKE, {"$type": LIKE, "subject": "y"}, rkey="c")
        alice.create(NOTE, note("kept too"), rkey="d")
        await rig.until(lambda: head_is_current(rig, alice))
        assert sorted(await rig.stored(alice)) == [f"{NOTE}/a", f"{NOTE}/d"]
        assert await rig.state(alice) == "synchronized"


async def head_is_current(rig: Rig, account) -> bool:
    """Tell whether the stored head is the network's."""
    return await rig.head(account) == account.rev


@pytest.mark.rule("CU-06", "CU-15")
async def test_after_a_relay_restart_reading_goes_on_at_the_cursor(clone, tmp_path: Path):
    async with Simnet(seed=14, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        await net.stop_server("relay")
        alice.create(NOTE, note("while it was away"), rkey="a")
        await net.start_server("relay")
        await rig.level(alice)
        assert (await rig.changes(alice))[-1] == ("create", "a", True)


@pytest.mark.rule("CU-06")
async def test_a_service_that_crashes_goes_on_where_it_was(clone, tmp_path: Path):
    async with Simnet(seed=15, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        await rig.crash()
        alice.create(NOTE, note("missed"), rkey="a")
        rig.start()
        await rig.level(alice)
        assert (await rig.changes(alice)).count(("create", "a", True)) == 1


@pytest.mark.rule("SN-07", "MG-06", "SG-08")
async def test_a_rotated_key_is_looked_up_and_its_sync_adopted(clone, tmp_path: Path):
    async with Simnet(seed=16, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        before = await rig.last_change()
        alice.rotate_key("p256")
        alice.create(NOTE, note("with the new key"), rkey="b")
        await rig.level(alice)
        changes = [change for change in await rig.changes(alice, after=before) if change[1]]
        assert changes == [("create", "b", True)]


@pytest.mark.rule("SG-08", "HO-01", "IN-11")
async def test_a_key_that_somebody_else_resolved_reaches_the_lane(owner):
    did, other = "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:plc:z72i7hdynmk6r22z27h6tvur"
    set_identity = "select sync.set_identity($1, null, $2, $3)"
    await owner.execute("select sync.track_repos(array[$1, $2])", did, other)
    for one in (did, other):
        await owner.execute(set_identity, one, "https://pds.test", "did:key:old")
    repos = TrackedRepos()
    await repos.reload(owner)
    assert repos.signer(did).signing_key == "did:key:old"
    repos.learn(other, Signer("did:key:found", "https://pds.test"))
    for pds, key in (("https://pds.test", "did:key:new"), ("https://new.test", "did:key:new")):
        await owner.execute(set_identity, did, pds, key)
        assert not await repos.reload(owner), "the filters are as they were"
        assert repos.signer(did) == Signer(key, pds)
    assert repos.signer(other).signing_key == "did:key:found"


@pytest.mark.rule("SG-08", "IN-11")
async def test_a_key_that_the_lane_found_out_is_compared_with_what_is_stored(owner, monkeypatch):
    did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
    await owner.execute("select sync.track_repos(array[$1])", did)
    await owner.execute("select sync.set_identity($1, null, 'https://pds.test', 'stored')", did)
    repos = TrackedRepos()
    await repos.reload(owner)
    repos.learn(did, Signer("found", "https://pds.test"))
    assert repos.signer(did).signing_key == "found"
    with monkeypatch.context() as later:
        later.setattr("sync.tracking.SIGNER_TTL_S", 0.0)  # longer than it may be stale
        assert repos.signer(did).signing_key is None
    await repos.look_up(owner, [did])
    assert repos.signer(did).signing_key == "stored"


@pytest.mark.rule("SG-08", "MT-08")
async def test_a_key_that_nobody_announced_is_stored_once_it_was_found(clone, tmp_path: Path):
    async with Simnet(seed=27, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.break_key()
        alice.repo.key = net.world.new_key(alice.repo.key.curve)
        net.world.directory.identities[alice.did].key = alice.repo.key.public
        alice.create(NOTE, note("with the new key"), rkey="b")
        await rig.level(alice)

        async def is_marked() -> bool:
            return await rig.conn.fetchval(
                "select is_identity_stale or signing_key = $2 from sync.repos where did = $1",
                alice.did,
                alice.repo.key.public.did_key,
            )

        await rig.until(is_marked)
        assert "bad_signature" not in await rig.problems()  # the lane has found the key itself


@pytest.mark.rule("AC-01", "AC-04", "AC-07", "AC-18")
async def test_a_deactivated_account_is_hidden_and_comes_back(clone, tmp_path: Path):
    async with Simnet(seed=17, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.deactivate()
        await rig.until(lambda: is_hidden(rig, alice))
        alice.activate()
        alice.create(NOTE, note("back"), rkey="b")
        await rig.level(alice)


async def is_hidden(rig: Rig, account) -> bool:
    """Tell whether no record of an account is shown."""
    return await rig.stored(account) == {}


@pytest.mark.rule("IN-07", "MT-07")
async def test_a_changed_handle_is_checked_and_stored(clone, tmp_path: Path):
    async with Simnet(seed=18, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        assert await handle_is(rig, alice, "alice.test")
        alice.change_handle("malice.test")
        await rig.until(lambda: handle_is(rig, alice, "malice.test"))


async def handle_is(rig: Rig, account, handle: str) -> bool:
    """Tell whether a repo is known by this handle."""
    query = "select handle from sync.repo_status where did = $1"
    return await rig.conn.fetchval(query, account.did) == handle


async def test_why_a_source_is_not_read_can_be_seen(clone, tmp_path: Path):
    async with Simnet(seed=20, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        await net.stop_server("relay")
        rig.start()
        assert "Refused" in await rig.until(lambda: trouble(rig))
        await net.start_server("relay")
        await rig.track(alice)
        await rig.level(alice)

        async def is_well() -> bool:
            return await trouble(rig) is None

        await rig.until(is_well)


async def trouble(rig: Rig) -> str | None:
    """Return what keeps the source from being read."""
    return await rig.conn.fetchval("select trouble from sync.source_status")
