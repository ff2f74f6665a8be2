"""`verify` proves what is stored, and finds what is not what was signed."""

from pathlib import Path

import pytest

from sync.atproto.cid import cid_for
from sync.errors import UpstreamUnavailable, UsageError
from sync.simnet import Simnet
from sync.simnet.traffic import generate
from sync.verifier import verify_repo
from tests.integration.rig import LIKE, NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)


async def test_a_fully_stored_repo_is_proven_whole_without_the_network(clone, tmp_path: Path):
    async with Simnet(seed=81, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        (alice,) = generate(net.world, 1, 120)
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        await net.stop_server("pds0")
        verdict = await verify_repo(rig.settings, alice.did)
        assert (verdict.summary, verdict.records) == ("whole", len(alice.leaves()))
        assert verdict.rev == alice.rev


async def filtered(rig: Rig, net: Simnet):
    """Return an account of which only one collection is stored."""
    alice = net.create_account("alice.test")
    alice.create(NOTE, note("stored"), rkey="a")
    alice.create(LIKE, {"$type": LIKE, "subject": "x"}, rkey="b")
    rig.start()
    await rig.track(alice, collections=[NOTE])

    async def is_there() -> bool:
        return await rig.state(alice) == "synchronized" and await rig.head(alice) == alice.rev

    await rig.until(is_there)
    return alice


async def test_a_filtered_repo_is_proven_against_the_signed_root(clone, tmp_path: Path):
    async with Simnet(seed=82, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = await filtered(rig, net)
        verdict = await verify_repo(rig.settings, alice.did)
        assert (verdict.summary, verdict.records) == ("filtered", 1)
        await net.stop_server("pds0")
        with pytest.raises(UpstreamUnavailable, match="Only some of the repo is stored"):
            await verify_repo(rig.settings, alice.did)


@pytest.mark.rule("MS-20", "D-08")
async def test_a_leaf_that_is_no_record_makes_the_proof_incomplete(clone, tmp_path: Path):
    async with Simnet(seed=83, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test", records={f"{NOTE}/a": note("one")})
        tree = alice.repo.head.tree
        assert tree is not None
        alice.create("notannsid", note("bad path"), rkey="x")
        rig.start()
        await rig.track(alice)

        async def is_there() -> bool:
            return await rig.head(alice) == alice.rev

        await rig.until(is_there)
        verdict = await verify_repo(rig.settings, alice.did)
        assert (verdict.summary, verdict.records) == ("incomplete: 1", 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("update sync.stored_records set value = '{\"$type\": \"x\"}' where rkey = 'a'", "signed"),
        ("delete from sync.stored_records where rkey = 'a'", "signed, but not stored"),
        ("update sync.stored_records set cid = $1 where rkey = 'a'", "not the one"),
    ],
)
async def test_a_record_that_was_tampered_with_is_found(clone, tmp_path: Path, damage, words):
    async with Simnet(seed=84, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        alice = net.create_account("alice.test")
        alice.create(NOTE, note("one"), rkey="a")
        alice.create(NOTE, note("two"), rkey="b")
        rig.start()
        await rig.track(alice)
        await rig.level(alice)
        await rig.stop()
        async with rig.conn.transaction():
            await rig.conn.execute("set local role sync_owner")
            arguments = [cid_for(b"\xa0")] if "$1" in damage else []
            await rig.conn.execute(damage, *arguments)
        verdict = await verify_repo(rig.settings, alice.did)
        assert verdict.summary == "failed"
        assert words in verdict.faults[0]


async def test_an_unknown_did_is_a_sentence(clone, tmp_path: Path):
    async with Simnet(seed=85, start_us=None) as net, rig_on(net, clone, tmp_path) as rig:
        with pytest.raises(UsageError, match="is not tracked"):
            await verify_repo(rig.settings, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
