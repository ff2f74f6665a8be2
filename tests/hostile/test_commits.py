"""Commits that nobody should have signed, or that were not signed as they should be."""

from collections.abc import Callable
from typing import Any

import pytest

from sync.atproto import cbor
from sync.atproto.cid import cid_for
from sync.atproto.keys import K256, P256
from sync.atproto.mst import EMPTY_ROOT, key_layer
from sync.atproto.syntax import make_tid
from sync.simnet import Account
from sync.simnet.repo import Write
from sync.triage import now_us
from tests.hostile.forge import (
    Body,
    adopt,
    blocks_of,
    car_of,
    commit_body,
    create_op,
    edit_car,
    fields_of,
    next_body,
    sign,
    sign_fields,
    sync_body,
    unheard,
)
from tests.hostile.world import HostileWorld, Lie, Tell, lie
from tests.integration.rig import NOTE, note
from tests.unit.repos import covering_proof, keys_by_layer, record

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

ORDER = {
    K256: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
NEW = Write.create(NOTE, "new", note("new"))


def say_commit(name: str, edit: Callable[[Account], Body], *reasons: str, **more: Any) -> Lie:
    """Tell a `#commit` that was never honest."""

    def tell(world: HostileWorld, account: Account) -> None:
        world.say(account.did, "#commit", edit(account))

    return lie(name, tell, *reasons, **more)


def say_sync(name: str, edit: Callable[[Account], Body], *reasons: str, **more: Any) -> Lie:
    """Tell a `#sync` that was never honest."""

    def tell(world: HostileWorld, account: Account) -> None:
        world.say(account.did, "#sync", edit(account))

    return lie(name, tell, *reasons, **more)


# Whose commit it is ---------------------------------------------------------------------------

STRANGER = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def other_commit(account: Account, change: Callable[[Body], object]) -> Body:
    """Return the next commit with other fields, signed by the account's own key."""
    body = next_body(account, NEW)
    blocks = blocks_of(body["blocks"])
    old, *others = blocks.items()
    fields = cbor.decode(old[1])
    del fields["sig"]
    change(fields)
    cid, block = sign_fields(fields, account.repo.key)
    return {**body, "commit": cbor.Link(cid), "blocks": car_of([cid], [(cid, block), *others])}


def of_stranger(account: Account) -> Body:
    return other_commit(account, lambda fields: fields.update(did=STRANGER))


def sync_of_stranger(account: Account) -> Body:
    fields = {**fields_of(account, EMPTY_ROOT), "did": STRANGER}
    return sync_body(account, (fields["rev"], *sign_fields(fields, account.repo.key)))


def with_old_version(account: Account) -> Body:
    return other_commit(account, lambda fields: fields.update(version=2))


def without_prev(account: Account) -> Body:
    return other_commit(account, lambda fields: fields.pop("prev"))


def with_odd_rev(account: Account) -> Body:
    return other_commit(account, lambda fields: fields.update(rev="now")) | {"rev": "now"}


def with_raw_data(account: Account) -> Body:
    raw = cbor.Link(cid_for(b"raw", codec=0x55))
    return other_commit(account, lambda fields: fields.update(data=raw))


def with_other_rev(account: Account) -> Body:
    return next_body(account, NEW) | {"rev": account.world.clock.tid()}


def with_other_root(account: Account) -> Body:
    return next_body(account, NEW) | {"commit": cbor.Link(account.repo.head.cid)}


def without_root(account: Account) -> Body:
    body = next_body(account, NEW)
    return body | {
        "blocks": edit_car(body["blocks"], lambda blocks: blocks.pop(next(iter(blocks))))
    }


def without_roots(account: Account) -> Body:
    body = next_body(account, NEW)
    return body | {"blocks": car_of([], list(blocks_of(body["blocks"]).items()))}


def damaged_commit(account: Account) -> Body:
    body = next_body(account, NEW)
    (cid, block), *others = blocks_of(body["blocks"]).items()
    return body | {"blocks": car_of([cid], [(cid, block[:-1] + b"\x02"), *others])}


def with_fields(**fields: object) -> Callable[[Account], Body]:
    return lambda account: next_body(account, NEW) | fields


def without_field(name: str) -> Callable[[Account], Body]:
    return lambda account: {k: v for k, v in next_body(account, NEW).items() if k != name}


FIELDS = [
    *(
        say_commit(f"a message without {name}", without_field(name), "bad_field")
        for name in ("commit", "rev", "blocks", "ops")
    ),
    say_commit("a since that is a number", with_fields(since=1), "bad_field"),
    say_commit("ops that are a map", with_fields(ops={}), "bad_field"),
    say_commit("an op without a path", with_fields(ops=[{"action": "create"}]), "bad_field"),
    say_commit("blocks that are text", with_fields(blocks="blocks"), "bad_field"),
    say_commit("a prevData that is text", with_fields(prevData="bafy"), "bad_field"),
    say_commit("a rev that is no TID", with_fields(rev="now"), "rev_mismatch"),
    *(
        say_commit(f"a seq that is {seq!r}", with_fields(seq=seq), "bad_seq")
        for seq in (0, -1, 1 << 53, "1", None)
    ),
]
IDENTITY = [
    say_commit("a stranger's commit, signed with the same key", of_stranger, "did_mismatch"),
    say_sync("a stranger's #sync, signed with the same key", sync_of_stranger, "did_mismatch"),
    say_commit("a commit of version 2", with_old_version, "bad_commit"),
    say_commit("a commit without prev", without_prev, "bad_commit"),
    say_commit("a commit with a rev that is no TID", with_odd_rev, "bad_commit"),
    say_commit("a commit over raw bytes", with_raw_data, "bad_commit"),
    say_commit("another rev than the commit's", with_other_rev, "rev_mismatch"),
    say_commit("another commit than the root", with_other_root, "root_mismatch"),
    say_commit("a root that is not there", without_root, "missing_commit"),
    say_commit("no roots", without_roots, "bad_car_header"),
    say_commit("a commit that is not what its CID says", damaged_commit, "hash_mismatch"),
]


# Revs that stand still, go back, or run ahead ---------------------------------------------------


def next_with_rev(rev: Callable[[Account], str]) -> Callable[[Account], Body]:
    return lambda account: next_body(account, NEW, rev=rev(account))


def sync_with_rev(rev: Callable[[Account], str]) -> Callable[[Account], Body]:
    return lambda account: sync_body(account, sign(account, EMPTY_ROOT, rev=rev(account)))


def same_rev(account: Account) -> str:
    return account.rev


def older_rev(account: Account) -> str:
    return account.repo.heads[-2].rev


def old_head(account: Account) -> Body:
    head = account.repo.heads[-3]
    return sync_body(account, (head.rev, head.cid, head.block))


HOUR_US = 3_600_000_000
FUTURE = {
    "an hour ahead": lambda _: make_tid(now_us() + HOUR_US, 0),
    "of the year 2255": lambda _: make_tid((1 << 53) - 1, 0),
    "that is the last there is": lambda _: "jzzzzzzzzzzzz",
}
OLD = "its rev is not newer"
REVS = [
    say_commit("a commit with the same rev", next_with_rev(same_rev), ignored=OLD),
    say_commit("a commit with an older rev", next_with_rev(older_rev), ignored=OLD),
    say_sync("a #sync with the same rev and another tree", sync_with_rev(same_rev), ignored=OLD),
    say_sync("a #sync with an older rev and another tree", sync_with_rev(older_rev), ignored=OLD),
    say_sync("a #sync that was honest once", old_head, ignored=OLD),
    *(
        tell(f"{what} with a rev {when}", say(rev), "future_rev")
        for when, rev in FUTURE.items()
        for what, tell, say in (
            ("a commit", say_commit, next_with_rev),
            ("a #sync", say_sync, sync_with_rev),
        )
    ),
]


# Signatures -------------------------------------------------------------------------------------


def signed_with(forge: Callable[[bytes, int], bytes]) -> Callable[[Account], Body]:
    """Return the next commit, its good signature made into another one."""

    def edit(account: Account) -> Body:
        body = next_body(account, NEW)
        (_, block), *others = blocks_of(body["blocks"]).items()
        fields = cbor.decode(block)
        fields["sig"] = forge(fields["sig"], ORDER[account.repo.key.curve])
        return _with_commit(body, cbor.encode(fields), others)

    return edit


def _with_commit(body: Body, block: bytes, others: list[tuple[bytes, bytes]]) -> Body:
    cid = cid_for(block)
    return {**body, "commit": cbor.Link(cid), "blocks": car_of([cid], [(cid, block), *others])}


def high_s(sig: bytes, order: int) -> bytes:
    return sig[:32] + (order - int.from_bytes(sig[32:], "big")).to_bytes(32, "big")


def der(sig: bytes, _order: int) -> bytes:
    parts = [b"\x02" + bytes((len(each),)) + each for each in (b"\0" + sig[:32], b"\0" + sig[32:])]
    return b"\x30" + bytes((len(b"".join(parts)),)) + b"".join(parts)


def over_other_bytes(account: Account) -> Body:
    """Sign a form of the commit that has its version in two bytes."""
    body = next_body(account, NEW)
    (_, block), *others = blocks_of(body["blocks"]).items()
    fields = cbor.decode(block)
    del fields["sig"]
    unsigned = cbor.encode(fields)[:-1] + b"\x18\x03"
    fields["sig"] = account.repo.key.sign(unsigned)
    return _with_commit(body, cbor.encode(fields)[:-1] + b"\x18\x03", others)


def with_unsigned_field(account: Account) -> Body:
    body = next_body(account, NEW)
    (_, block), *others = blocks_of(body["blocks"]).items()
    return _with_commit(body, cbor.encode({**cbor.decode(block), "x": 1}), others)


def with_signed_field(world: HostileWorld, account: Account) -> None:
    """Sign a field that nobody knows, as the protocol allows (CM-37)."""
    fields = {**fields_of(account, account.repo.head.tree.cid), "x": 1}
    cid, block = sign_fields(fields, account.repo.key)
    world.say(account.did, "#commit", commit_body(account, (fields["rev"], cid, block), [], {}))
    adopt(account, fields["rev"], block)


SIGNATURES = {
    "with a high s": high_s,
    "as DER": der,
    "of 63 bytes": lambda sig, _: sig[:63],
    "of 65 bytes": lambda sig, _: sig + b"\x00",
    "of none": lambda _sig, _: b"",
    "with r = 0": lambda sig, _: bytes(32) + sig[32:],
    "with s = 0": lambda sig, _: sig[:32] + bytes(32),
    "with r = n": lambda sig, order: order.to_bytes(32, "big") + sig[32:],
    "of another message": lambda sig, _: sig[:31] + bytes((sig[31] ^ 1,)) + sig[32:],
}
SIGNED = [
    *(
        say_commit(
            f"a signature {how}, {curve}", signed_with(forge), "bad_signature", how={"curve": curve}
        )
        for how, forge in SIGNATURES.items()
        for curve in (K256, P256)
    ),
    say_commit("a signature over bytes in another form", over_other_bytes, "bad_commit"),
    say_commit("a field that was added after signing", with_unsigned_field, "bad_signature"),
    lie("a signed field that nobody knows", with_signed_field, ignored="it is as good as signed"),
]


# Limits and empty commits -----------------------------------------------------------------------


def many(count: int, size: int = 0) -> list[Write]:
    """Return creations of records that have about this many bytes each."""
    text = "x" * size
    return [Write.create(NOTE, f"many{n:03}", note(f"{n:03}{text}")) for n in range(count)]


def commit_of(account: Account, writes: list[Write], *, pad_to: int = 0) -> Body:
    """Return the next commit with any number of writes, padded with a raw block."""
    tree = account.repo.head.tree
    for write in writes:
        assert write.block is not None
        tree = tree.put(write.path.encode(), cid_for(write.block))
    commit = sign(account, tree.cid)
    ops = [create_op(write.path, write.block or b"") for write in writes]
    blocks = {cid_for(write.block or b""): write.block or b"" for write in writes}
    body = commit_body(account, commit, ops, {**dict(tree.blocks()), **blocks})
    missing = pad_to - len(body["blocks"])
    if missing > 0:
        filler = bytes(missing - 40)
        padding = {cid_for(filler, codec=0x55): filler}
        body = commit_body(account, commit, ops, {**dict(tree.blocks()), **blocks, **padding})
    return body


def fill_to_the_limit(_world: HostileWorld, account: Account) -> None:
    commit = account.apply_writes(many(200, 9_600))
    assert 1_900_000 < len(commit.car) <= 2_000_000


def create_and_delete(_world: HostileWorld, account: Account) -> None:
    account.apply_writes([NEW, Write.delete(NOTE, "new"), Write.create(NOTE, "x", note("x"))])


def update_to_the_same(_world: HostileWorld, account: Account) -> None:
    account.apply_writes([Write.update(NOTE, "first0", note("first 0"))])


def commit_nothing(count: int) -> Tell:
    def tell(_world: HostileWorld, account: Account) -> None:
        for _ in range(count):
            account.apply_writes([])

    return tell


def empty_with_another_tree(account: Account) -> Body:
    tree = account.repo.head.tree.put(f"{NOTE}/sly".encode(), cid_for(record("sly")))
    return commit_body(account, sign(account, tree.cid), [], dict(tree.blocks()))


def sync_of_size(size: int) -> Callable[[Account], Body]:
    def edit(account: Account) -> Body:
        body = sync_body(account, sign(account, account.repo.head.tree.cid))
        filler = bytes(size - len(body["blocks"]) - 38)
        block = (cid_for(filler, codec=0x55), filler)
        (commit,) = blocks_of(body["blocks"]).items()
        car = car_of([commit[0]], [commit, block])
        assert len(car) == size, len(car)
        return body | {"blocks": car}

    return edit


LIMITS = [
    lie("200 ops in two million bytes", fill_to_the_limit, ignored="that is just allowed"),
    say_commit("201 ops", lambda a: commit_of(a, many(201)), "too_many_ops", is_refetched=True),
    say_commit(
        "more than two million bytes",
        lambda a: commit_of(a, many(1), pad_to=2_000_100),
        "blocks_too_big",
        is_refetched=True,
    ),
    say_sync("a #sync of 10,001 bytes", sync_of_size(10_001), "sync_too_big", is_refetched=True),
    lie(
        "a record created and deleted in one commit", create_and_delete, ignored="it comes to this"
    ),
    lie("an update to the same record", update_to_the_same, ignored="it is no change"),
    lie("an empty commit", commit_nothing(1), ignored="only its rev is new"),
    lie("fifty empty commits", commit_nothing(50), ignored="only their revs are new"),
    say_commit(
        "an empty commit over another tree",
        empty_with_another_tree,
        "inversion_mismatch",
        is_refetched=True,
    ),
]


# Proofs and shapes of trees ---------------------------------------------------------------------


def proven_by(choose: Callable[[Account, Body], set[bytes]], *writes: Write) -> Tell:
    """Tell an honest commit with those nodes only that are chosen."""

    def tell(world: HostileWorld, account: Account) -> None:
        body = unheard(world, account, *writes)
        nodes = dict(account.repo.head.tree.blocks())
        kept = choose(account, body)
        body["blocks"] = edit_car(
            body["blocks"],
            lambda blocks: [blocks.pop(cid, None) for cid in nodes if cid not in kept],
        )
        world.say(account.did, "#commit", body)

    return tell


def minimal(account: Account, body: Body) -> set[bytes]:
    tree, paths = account.repo.head.tree, [op["path"].encode() for op in body["ops"]]
    return set(covering_proof(tree.cid, dict(tree.blocks()), paths, neighbours=False))


def only_root(account: Account, _body: Body) -> set[bytes]:
    return {account.repo.head.tree.cid}


def all_but_last(account: Account, body: Body) -> set[bytes]:
    tree = account.repo.head.tree
    *kept, _ = tree.path_blocks(body["ops"][-1]["path"].encode())
    return set(kept)


def grow_and_shrink(world: HostileWorld, account: Account) -> None:
    """Put a root on top of the tree, and tell of the old one no more than its CID."""
    top = max(key_layer(key) for key, _ in account.repo.head.tree.leaves())
    (key,) = keys_by_layer(top + 1, 1)
    write = Write.create(NOTE, key.decode().partition("/")[2], note("on top"))
    proven_by(only_root, write)(world, account)


BOTTOM = [
    Write.create(NOTE, key.decode().partition("/")[2], note("at the bottom"))
    for key in keys_by_layer(0, 3)
]


def empty_and_refill(world: HostileWorld, account: Account) -> None:
    paths = [path.partition("/")[2] for path in account.leaves()]
    account.apply_writes([Write.delete(NOTE, rkey) for rkey in paths])
    assert account.repo.head.tree.cid == EMPTY_ROOT
    account.apply_writes(many(200))
    account.apply_writes([Write.delete(NOTE, write.rkey) for write in many(200)[1:]])
    assert len(account.leaves()) == 1


SHAPES = [
    lie("a minimal proof", proven_by(minimal, *BOTTOM), ignored="it is enough"),
    lie(
        "a proof without a node",
        proven_by(all_but_last, *BOTTOM),
        "missing_node",
        is_refetched=True,
    ),
    lie("a new root over a closed tree", grow_and_shrink, ignored="nothing in it has changed"),
    lie("an empty repo that is filled again", empty_and_refill, ignored="it is honest"),
]


@pytest.mark.scenario("A-16", "A-17", "A-18", "A-19", "A-20")
@pytest.mark.rule("CM-06", "CM-07", "CM-08", "CM-09", "CM-10", "CM-11", "CM-12", "CM-15", "CM-16")
@pytest.mark.rule("CM-37", "CM-38", "SN-03", "SN-05", "FA-03", "FA-04", "FA-05", "SG-01", "SG-02")
@pytest.mark.rule("SG-04", "SG-08", "SG-12", "SG-14", "CA-03", "CM-01", "CM-13", "CM-14")
@pytest.mark.rule("CU-01", "MT-01")
async def test_no_commit_counts_that_the_account_did_not_sign(world: HostileWorld) -> None:
    await world.play([*FIELDS, *IDENTITY, *REVS, *SIGNED])


@pytest.mark.scenario("A-27", "A-28", "A-45", "A-46")
@pytest.mark.rule("CM-03", "CM-04", "CM-23", "CM-24", "CM-34", "D-01", "D-04", "SN-02", "FA-09")
@pytest.mark.rule("IV-02", "IV-03", "IV-04", "MS-11")
async def test_limits_and_proofs_are_exact(world: HostileWorld) -> None:
    await world.play([*LIMITS, *SHAPES])
