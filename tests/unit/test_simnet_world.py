"""The simulated network tells the truth: every event and export verifies, by the real rules."""

import io
import time
from typing import Any

import pytest

from sync.atproto import frame
from sync.atproto.export import ExportLimits, read_export
from sync.atproto.identity import parse_did_document
from sync.atproto.keys import PublicKey, parse_did_key
from sync.atproto.mst import EMPTY_ROOT
from sync.atproto.syntax import is_supported_did
from sync.atproto.verify import VerifiedCommit, verify_commit, verify_sync
from sync.errors import BadSignature, MessageError, UsageError
from sync.simnet import Account, World, Write
from sync.simnet.stream import Stream
from sync.simnet.traffic import Traffic, commit_frames, generate

NOTE = "com.example.note"


def note(text: str) -> dict[str, str]:
    return {"$type": NOTE, "text": text}


def messages(stream: Stream, after: int = 0) -> list[Any]:
    """Return messages as what they are; a test knows which kinds it made."""
    return [frame.read_frame(event.frame) for event in stream.after(after, limit=100_000)]


def brief(stream: Stream, after: int = 0) -> list[str]:
    return [event.kind for event in stream.after(after)]


def key_of(account: Account) -> PublicKey:
    document = parse_did_document(account.did, account.world.directory.document(account.did))
    assert document.signing_key is not None
    return parse_did_key(document.signing_key)


def now_us() -> int:
    return time.time_ns() // 1_000


def verify(account: Account, message: Any) -> Any:
    if isinstance(message, frame.CommitMessage):
        return verify_commit(message, key_of(account), now_us=now_us())
    return verify_sync(message, key_of(account), now_us=now_us())


def exported(account: Account) -> dict[str, bytes]:
    """Return the leaves of a fully verified export."""
    file = io.BytesIO(account.repo.export())
    export = read_export(file, account.did, key_of(account), now_us=now_us(), limits=ExportLimits())
    assert export.commit.rev == account.rev
    assert all(export.read_block(leaf.cid) for leaf in export.leaves)
    return {f"{leaf.collection}/{leaf.rkey}": leaf.cid for leaf in export.leaves}


class Mirror:
    """Fold verified commits of a stream that starts with every repo empty."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heads: dict[str, tuple[str, bytes]] = {}
        self.leaves: dict[str, dict[str, bytes]] = {}

    def read(self, message: Any) -> None:
        if not isinstance(message, frame.CommitMessage | frame.SyncMessage):
            return
        verified = verify(self.world.accounts[message.did], message)
        if isinstance(verified, VerifiedCommit):
            self.apply(verified)
        assert self.heads[verified.did] == (verified.rev, verified.data)

    def apply(self, commit: VerifiedCommit) -> None:
        if commit.since is not None:
            assert self.heads[commit.did] == (commit.since, commit.prev_data)
        leaves = self.leaves.setdefault(commit.did, {})
        for op in commit.ops:
            path = f"{op.collection}/{op.rkey}"
            assert leaves.pop(path, None) == op.prev
            if op.cid is not None:
                leaves[path] = op.cid
        self.heads[commit.did] = (commit.rev, commit.data)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_commit_verifies_chains_and_folds_to_what_the_export_holds(seed):
    world = World(seed=seed, pds_count=2)
    for number in range(6):
        world.create_account(pds=number % 2, curve=("k256", "p256")[number % 2])
    traffic = Traffic(world, seed=seed)
    for _ in range(300):
        traffic.step()
    mirror = Mirror(world)
    for message in messages(world.relay):
        mirror.read(message)
    for account in world.accounts.values():
        assert mirror.leaves[account.did] == account.leaves() == exported(account)
        assert mirror.heads[account.did][0] == account.rev


def test_traffic_leaves_alone_who_cannot_write():
    world = World()
    gone, hidden, well = generate(world, 3, 10)
    gone.delete_account()
    traffic = Traffic(world)
    hidden.set_status("deactivated")
    before = well.rev
    for _ in range(50):
        traffic.step()
    assert well.rev > before


def test_the_same_seed_makes_the_same_bytes_and_another_seed_does_not():
    def frames(seed: int) -> list[bytes]:
        world = World(seed=seed)
        generate(world, 3, 10)
        return commit_frames(world, 50)

    assert frames(1) == frames(1)
    assert not set(frames(1)) & set(frames(2))


def test_on_the_wall_clock_records_still_follow_the_seed():
    def leaves() -> list[tuple[str, dict[str, bytes]]]:
        made = generate(World(start_us=None), 2, 50)
        return [(account.did, account.leaves()) for account in made]

    assert leaves() == leaves()


def test_accounts_have_valid_dids_and_keys_of_the_curve_that_was_asked():
    world = World()
    for curve in ("k256", "p256"):
        account = world.create_account(curve=curve)
        assert is_supported_did(account.did)
        assert key_of(account).curve == curve


@pytest.mark.parametrize("form", ["multikey", "legacy"])
@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_documents_name_key_host_and_handle_in_both_forms(form, curve):
    world = World(key_form=form)
    account = world.create_account("Alice.Example.test", curve=curve)
    document = parse_did_document(account.did, world.directory.document(account.did))
    assert document.signing_key == account.repo.key.public.did_key
    assert document.pds_url == world.hosts[0].url
    assert document.handle_claim == "alice.example.test"


def test_a_new_account_is_told_as_the_real_server_tells_it():
    world = World()
    account = world.create_account()
    assert brief(world.relay) == ["#identity", "#account", "#commit", "#sync"]
    genesis = verify(account, messages(world.relay)[2])
    assert (genesis.since, genesis.prev_data, genesis.data) == (None, None, EMPTY_ROOT)


def test_an_imported_account_announces_its_head_without_ops():
    world = World()
    (account,) = generate(world, 1, 500)
    assert brief(world.relay) == ["#identity", "#account", "#sync"]
    assert verify(account, messages(world.relay)[-1]).data == account.repo.head.tree.cid
    assert len(exported(account)) == 500


def test_a_batch_may_create_and_delete_one_path():
    world = World()
    account = world.create_account()
    account.create(NOTE, note("one"), rkey="one")
    account.apply_writes(
        [
            Write.create(NOTE, "two", note("two")),
            Write.delete(NOTE, "two"),
            Write.update(NOTE, "one", note("changed")),
        ]
    )
    verified = verify(account, messages(world.relay)[-1])
    assert [(op.action, op.rkey) for op in verified.ops] == [("update", "one")]
    assert exported(account).keys() == {f"{NOTE}/one"}


def test_an_empty_commit_moves_the_rev_alone():
    world = World()
    account = world.create_account()
    before = account.repo.head
    account.apply_writes([])
    verified = verify(account, messages(world.relay)[-1])
    assert (verified.ops, verified.data, verified.since) == ((), before.tree.cid, before.rev)
    assert verified.rev > before.rev


def test_full_batches_of_two_hundred_verify_and_larger_ones_are_refused():
    world = World()
    account = world.create_account()
    writes = [Write.create(NOTE, f"n{number}", note(str(number))) for number in range(201)]
    with pytest.raises(UsageError):
        account.apply_writes(writes)
    account.apply_writes(writes[:200])
    account.apply_writes([Write.delete(NOTE, write.rkey) for write in writes[:200]])
    assert len(verify(account, messages(world.relay)[-1]).ops) == 200
    assert account.repo.head.tree.cid == EMPTY_ROOT


@pytest.mark.parametrize("action", ["update", "delete"])
def test_what_is_not_there_cannot_be_changed(action):
    account = World().create_account()
    block = None if action == "delete" else b"\xa0"
    with pytest.raises(UsageError, match="cannot"):
        account.apply_writes([Write(action, NOTE, "absent", block)])


def test_a_key_rotation_is_an_identity_and_a_sync_and_the_chain_goes_on():
    world = World()
    account = world.create_account()
    account.create(NOTE, note("before"))
    old_rev, seq = account.rev, world.relay.last_seq
    account.rotate_key("p256")
    assert brief(world.relay, seq) == ["#identity", "#sync"]
    sync = verify(account, messages(world.relay)[-1])
    assert sync.rev > old_rev
    assert account.hosted.listed_rev == old_rev
    account.create(NOTE, note("after"))
    assert verify(account, messages(world.relay)[-1]).since == sync.rev
    assert len(exported(account)) == 2


def test_a_key_that_only_the_directory_knows_breaks_signatures_until_mended():
    world = World()
    account = world.create_account()
    account.break_key()
    account.create(NOTE, note("unverifiable"))
    with pytest.raises(BadSignature):
        verify(account, messages(world.relay)[-1])
    account.mend_key()
    assert verify(account, messages(world.relay)[-1]).ops


def test_a_deactivated_account_says_so_and_cannot_write():
    world = World()
    account = world.create_account()
    account.deactivate()
    message = messages(world.relay)[-1]
    assert (message.active, message.status) == (False, "deactivated")
    with pytest.raises(UsageError, match="deactivated"):
        account.create(NOTE, note("no"))
    seq = world.relay.last_seq
    account.activate()
    assert brief(world.relay, seq) == ["#account", "#identity", "#sync"]


def test_a_takedown_is_undone_by_an_account_event_alone():
    world = World()
    account = world.create_account()
    seq = world.relay.last_seq
    account.take_down()
    account.restore()
    assert brief(world.relay, seq) == ["#account", "#account"]


def test_a_deleted_account_leaves_only_its_deletion_in_the_window():
    world = World()
    account, other = world.create_account(), world.create_account()
    account.delete_account(tombstone=True)
    left = [event for event in world.relay.events() if event.did == account.did]
    assert [event.kind for event in left] == ["#account"]
    assert messages(world.relay)[-1].status == "deleted"
    assert other.leaves() == {}


@pytest.mark.parametrize(
    ("kept", "records", "is_same"),
    [("nothing", 0, False), ("contents", 1, False), ("all", 1, True)],
)
def test_a_deleted_account_comes_back_at_another_host(kept, records, is_same):
    world = World(pds_count=2)
    account = world.create_account()
    before = account.create(NOTE, note("at home")).head
    with pytest.raises(UsageError, match="not deleted"):
        account.come_back(1)
    account.delete_account(tombstone=True)
    seq = world.relay.last_seq
    account.come_back(1, kept=kept)
    assert account.host is world.hosts[1]
    assert brief(world.relay, seq) == ["#account", "#identity", "#sync"]
    assert verify(account, messages(world.relay)[-1]).data == account.repo.head.tree.cid
    assert len(exported(account)) == records
    assert (account.repo.head == before) is is_same


def test_a_migration_is_told_with_the_real_servers_quirks():
    world = World(pds_count=2)
    account = world.create_account()
    first = account.create(NOTE, note("at home"))
    seq, old_seq = world.relay.last_seq, world.hosts[0].stream.last_seq
    account.move_account(1)
    assert account.host is world.hosts[1]
    assert brief(world.relay, seq) == ["#identity", "#account", "#identity", "#sync"]
    old = messages(world.hosts[0].stream, old_seq)
    assert [message.status for message in old] == ["deactivated"]
    with pytest.raises(MessageError):
        verify(account, messages(world.relay)[-1])
    account.create(NOTE, note("away"))
    verified = verify(account, messages(world.relay)[-1])
    assert (verified.since, verified.prev_data) == (first.rev, first.head.tree.cid)
    assert len(exported(account)) == 2
    account.leave_host(0)
    assert [message.status for message in messages(world.hosts[0].stream)] == ["deleted"]
    assert messages(world.relay)[-1].rev == verified.rev


def test_a_migration_to_a_host_that_signs_at_once_verifies():
    world = World(pds_count=2)
    account = world.create_account()
    account.create(NOTE, note("at home"))
    account.move_account(1, resign=True)
    assert verify(account, messages(world.relay)[-1]).data == account.repo.head.tree.cid
    assert len(exported(account)) == 1
    with pytest.raises(UsageError, match="already"):
        account.move_account(1)


def test_dropped_events_are_honest_missed_history():
    world = World()
    account = world.create_account()
    first = account.create(NOTE, note("seen"), rkey="seen")
    world.drop_next(1)
    lost = account.delete(NOTE, "seen")
    account.create(NOTE, note("seen too"))
    verified = verify(account, messages(world.relay)[-1])
    assert verified.since == lost.rev > first.rev
    assert messages(world.relay)[-2].rev == first.rev


def test_on_the_wall_clock_revs_rise_and_are_not_from_the_future():
    world = World(start_us=None)
    account = world.create_account()
    revs = [account.create(NOTE, note(str(number))).rev for number in range(50)]
    assert revs == sorted(set(revs))
    assert verify(account, messages(world.relay)[-1]).rev == revs[-1]


def test_odd_blocks_are_carried_as_they_are():
    world = World()
    account = world.create_account()
    account.create(NOTE, b"\xa1\x61x\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00")
    assert verify(account, messages(world.relay)[-1]).ops[0].block.startswith(b"\xa1\x61x\xfb")
