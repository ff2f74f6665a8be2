"""Resyncs: what a refetch finds becomes creates, updates and deletes, and nothing else."""

from pathlib import Path

import pytest

from sync.simnet import Simnet
from sync.simnet.repo import Write
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)


async def resync(rig: Rig, account) -> None:
    """Ask for a resync and wait until it is over."""
    before = await rig.conn.fetchval(
        "select synchronized_at from sync.repo_status where did = $1", account.did
    )
    await rig.conn.fetchval("select sync.resync_repos($1)", [account.did])

    async def is_over() -> bool:
        now = await rig.conn.fetchval(
            "select synchronized_at from sync.repo_status where did = $1", account.did
        )
        return bool(now > before and await rig.state(account) == "synchronized")

    await rig.until(is_over)


@pytest.mark.scenario("A-52")
@pytest.mark.rule("BF-05", "BF-06")
async def test_the_reference_example_of_a_resync(clone, tmp_path: Path):
    """Told A, B, A deleted, C; the refetch finds A again, no B, the same C, and D."""
    async with Simnet(seed=21, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.create(NOTE, note("lorem"), rkey="A")
        alice.create(NOTE, note("ipsum"), rkey="B")
        alice.delete(NOTE, "A")
        alice.create(NOTE, note("dolor"), rkey="C")
        await rig.level(alice)
        before = await rig.last_change()
        net.drop_next(3)
        alice.create(NOTE, note("i'm back"), rkey="A")
        alice.delete(NOTE, "B")
        alice.create(NOTE, note("amet"), rkey="D")
        await resync(rig, alice)
        await rig.level(alice)
        found = await rig.changes(alice, after=before)
        assert sorted(found) == [
            ("create", "A", False),
            ("create", "D", False),
            ("delete", "B", False),
        ]
        after = await rig.last_change()
        await resync(rig, alice)
        assert await rig.changes(alice, after=after) == []


@pytest.mark.rule("CM-17", "CM-18", "FA-06")
@pytest.mark.scenario("A-12")
async def test_a_lost_commit_breaks_the_chain_and_is_made_up_for(clone, tmp_path: Path):
    async with Simnet(seed=22, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        alice.create(NOTE, note("two"), rkey="b")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        before = await rig.last_change()
        net.drop_next(1)
        alice.delete(NOTE, "a")
        alice.create(NOTE, note("three"), rkey="c")
        await rig.level(alice)
        assert sorted(await rig.changes(alice, after=before)) == [
            ("create", "c", False),
            ("delete", "a", False),
        ]


@pytest.mark.rule("SN-08")
async def test_a_sync_event_with_other_contents_leads_to_a_fetch(clone, tmp_path: Path):
    async with Simnet(seed=23, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        net.drop_next(1)
        alice.apply_writes([Write.delete(NOTE, "a"), Write.create(NOTE, "b", note("two"))])
        alice.emit_sync()
        await rig.level(alice)


@pytest.mark.rule("SG-08", "FA-03")
@pytest.mark.scenario("A-21")
async def test_a_bad_signature_heals_once_the_directory_has_the_key(clone, tmp_path: Path):
    async with Simnet(seed=24, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        alice.break_key()
        alice.emit_identity()
        await rig.until(lambda: key_is(rig, alice))
        alice.create(NOTE, note("signed with a key nobody knows"), rkey="b")
        await rig.until(lambda: was_refused(rig, "bad_signature"))
        assert sorted(await rig.stored(alice)) == [f"{NOTE}/a"]
        alice.mend_key()
        alice.emit_identity()
        await rig.level(alice)


async def key_is(rig: Rig, account) -> bool:
    """Tell whether the stored key is the published one."""
    published = account.world.directory.identities[account.did].key.did_key
    query = "select signing_key from sync.repo_identity($1)"
    return await rig.conn.fetchval(query, [account.did]) == published


async def was_refused(rig: Rig, reason: str) -> bool:
    """Tell whether a reason was counted."""
    return reason in await rig.problems()
