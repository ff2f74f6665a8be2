"""Imports of CAR files: verified by whatever key there is, refused in one sentence otherwise."""

import json
from pathlib import Path

import pytest

from sync.errors import BadInput, UsageError
from sync.importer import KeySource, import_repo
from sync.simnet import Account, Simnet
from sync.verifier import verify_repo
from tests.integration.rig import NOTE, note, rig_on


def car_of(account: Account, folder: Path) -> Path:
    """Write an account's export to a file."""
    path = folder / "repo.car"
    path.write_bytes(account.repo.export())
    return path


def account_with_notes(net: Simnet) -> Account:
    """Return an account with three records."""
    alice = net.create_account("alice.test")
    for rkey in ("a", "b", "c"):
        alice.create(NOTE, note(rkey), rkey=rkey)
    return alice


@pytest.mark.rule("BF-04", "CA-19")
@pytest.mark.parametrize("source", ["key", "multikey", "document", "network"])
async def test_an_import_is_verified_by_the_key_at_hand(clone, tmp_path: Path, source):
    async with Simnet(seed=71) as net, rig_on(net, clone, tmp_path) as rig:
        alice = account_with_notes(net)
        did_key = alice.repo.key.public.did_key
        document = tmp_path / "did.json"
        document.write_text(json.dumps(net.world.directory.document(alice.did)))
        sources = {
            "key": KeySource(signing_key=did_key),
            "multikey": KeySource(signing_key=did_key.removeprefix("did:key:")),
            "document": KeySource(document=document),
            "network": KeySource(),
        }
        path = car_of(alice, tmp_path)
        imported = await import_repo(rig.settings, path, key_source=sources[source])
        assert (imported.trust, imported.outcome, imported.created) == (
            "verified",
            "synchronized",
            3,
        )
        assert await rig.is_level(alice)
        assert (await verify_repo(rig.settings, alice.did)).summary == "whole"


async def test_a_second_import_of_a_newer_file_writes_the_difference(clone, tmp_path: Path):
    async with Simnet(seed=72) as net, rig_on(net, clone, tmp_path) as rig:
        alice = account_with_notes(net)
        key = KeySource(signing_key=alice.repo.key.public.did_key)
        await import_repo(rig.settings, car_of(alice, tmp_path), key_source=key)
        alice.delete(NOTE, "a")
        alice.update(NOTE, note("B"), rkey="b")
        alice.create(NOTE, note("d"), rkey="d")
        again = await import_repo(rig.settings, car_of(alice, tmp_path), key_source=key)
        assert (again.created, again.updated, again.deleted) == (1, 1, 1)
        assert await rig.is_level(alice)


@pytest.mark.rule("BF-12")
async def test_an_older_file_is_refused(clone, tmp_path: Path):
    async with Simnet(seed=73) as net, rig_on(net, clone, tmp_path) as rig:
        alice = account_with_notes(net)
        key = KeySource(signing_key=alice.repo.key.public.did_key)
        old = tmp_path / "old.car"
        old.write_bytes(alice.repo.export())
        alice.create(NOTE, note("d"), rkey="d")
        await import_repo(rig.settings, car_of(alice, tmp_path), key_source=key)
        with pytest.raises(BadInput, match="older than what is stored"):
            await import_repo(rig.settings, old, key_source=key)
        assert len(await rig.stored(alice)) == 4


async def test_unsigned_is_only_accepted_on_request_and_says_so(clone, tmp_path: Path):
    async with Simnet(seed=74) as net, rig_on(net, clone, tmp_path) as rig:
        alice = account_with_notes(net)
        path = car_of(alice, tmp_path)
        imported = await import_repo(rig.settings, path, key_source=KeySource(is_unsigned=True))
        assert imported.trust == "unsigned"
        verdict = await verify_repo(rig.settings, alice.did)
        assert (verdict.trust, verdict.summary) == ("unsigned", "whole")


@pytest.mark.rule("CA-05", "CA-17")
@pytest.mark.scenario("A-40")
async def test_what_is_no_repo_is_refused_in_one_sentence(clone, tmp_path: Path):
    async with Simnet(seed=75) as net, rig_on(net, clone, tmp_path) as rig:
        alice, bob = account_with_notes(net), net.create_account("bob.test")
        path = car_of(alice, tmp_path)
        key = KeySource(signing_key=alice.repo.key.public.did_key)
        cut = tmp_path / "cut.car"
        cut.write_bytes(path.read_bytes()[:-10])
        for file, source, words, error in [
            (tmp_path / "nothing.car", key, "cannot be read", BadInput),
            (cut, key, "cut", BadInput),
            (
                path,
                KeySource(signing_key=bob.repo.key.public.did_key),
                "not signed by the key",
                BadInput,
            ),
            (path, KeySource(signing_key="hello"), "is not a signing key", UsageError),
        ]:
            with pytest.raises(error, match=words):
                await import_repo(rig.settings, file, key_source=source)
        assert await rig.conn.fetchval("select count(*) from sync.repo_status") == 0


@pytest.mark.rule("OP-03")
async def test_a_file_with_too_many_collections_is_refused_whole(clone, tmp_path: Path):
    async with Simnet(seed=77) as net, rig_on(net, clone, tmp_path) as rig:
        crowd = {f"com.example.c{n}/a": note(str(n)) for n in range(1_001)}
        mallory = net.create_account("mallory.test", records=crowd)
        await rig.conn.fetchval("select sync.track_collections(array['com.example.*'])")
        key = KeySource(signing_key=mallory.repo.key.public.did_key)
        with pytest.raises(BadInput, match="too many new collections"):
            await import_repo(rig.settings, car_of(mallory, tmp_path), key_source=key)
        assert await rig.stored(mallory) == {}
        mallory.delete("com.example.c7", "a")
        imported = await import_repo(rig.settings, car_of(mallory, tmp_path), key_source=key)
        assert (imported.outcome, imported.created) == ("synchronized", 1_000)
