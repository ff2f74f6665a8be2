"""Verifying events: who signed, what the tree proves, and what is broken rather than forged."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import cbor, mst
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.frame import CommitMessage, RepoOp
from sync.atproto.keys import K256, P256, PrivateKey
from sync.atproto.node import write_node
from sync.atproto.syntax import make_tid
from sync.atproto.verify import (
    MAX_FUTURE_US,
    VerifiedCommit,
    VerifiedOp,
    VerifiedSync,
    verify_commit,
    verify_sync,
)
from sync.errors import BadSignature, BrokenCommit, MessageError, ProtocolError
from tests.unit.repos import (
    DID,
    KEY,
    NOW_US,
    REV,
    SINCE,
    Change,
    keys_by_layer,
    record,
    some_records,
)

OLD = some_records(range(100))
RAW_LINK = cid_for(b"raw", codec=0x55)
NOTE = "com.example.note"

Lie = Callable[[Change], dict[str, Any]]


def verified(message: CommitMessage, key: PrivateKey = KEY) -> VerifiedCommit:
    return verify_commit(message, key.public, now_us=NOW_US)


def refused(message: CommitMessage) -> tuple[str, bool]:
    """Return the reason, and whether the repo must be fetched again."""
    with pytest.raises(MessageError) as caught:
        verified(message)
    if isinstance(caught.value, BrokenCommit):
        assert (caught.value.did, caught.value.rev) == (DID, REV)
    return caught.value.reason, isinstance(caught.value, BrokenCommit)


def one_create() -> Change:
    return Change(OLD, OLD | {"com.example.note/new": record("new")})


@pytest.mark.rule("IV-01", "CM-32", "SG-02", "SG-03")
@pytest.mark.parametrize("curve", [K256, P256])
def test_an_honest_commit_is_verified_with_its_records(curve: str) -> None:
    key = PrivateKey.generate(curve, seed=b"honest")
    after = {path: block for path, block in OLD.items() if not path.endswith("/7")}
    after |= {"com.example.note/8": record("changed"), "com.example.note/new": record("new")}
    change = Change(OLD, after, key=key)
    result = verified(change.message(), key)
    old, new, fresh = record("note 8"), record("changed"), record("new")
    assert result == VerifiedCommit(
        seq=1, did=DID, rev=REV, since=SINCE, prev_data=change.prev_data, data=change.data,
        commit_block=change.commit_block, skipped=(),
        ops=(
            VerifiedOp("delete", NOTE, "7", None, cid_for(record("note 7")), None, None),
            VerifiedOp("update", NOTE, "8", cid_for(new), cid_for(old), new, None),
            VerifiedOp("create", NOTE, "new", cid_for(fresh), None, fresh, None),
        ),
    )  # fmt: skip


@pytest.mark.rule("CM-23", "MG-06")
@pytest.mark.scenario("A-28")
def test_an_empty_commit_needs_no_tree() -> None:
    change = Change(OLD, OLD)
    assert not change.proof
    assert verified(change.message()).ops == ()
    assert verified(change.message(prev_data=None, since=None)).prev_data is None


@pytest.mark.rule("CM-24")
@pytest.mark.scenario("A-28")
def test_an_empty_commit_that_changes_the_data_is_broken() -> None:
    assert refused(one_create().message(ops=())) == ("inversion_mismatch", True)


@pytest.mark.rule("CM-22")
@pytest.mark.scenario("A-46")
def test_a_first_commit_leads_back_to_the_empty_tree() -> None:
    change = Change({}, some_records(range(200)))
    assert change.prev_data == mst.EMPTY_ROOT
    assert len(verified(change.message()).ops) == 200
    genesis = verified(change.message(prev_data=None, since=None))
    assert (genesis.prev_data, genesis.since, len(genesis.ops)) == (None, None, 200)
    assert len(verified(Change(some_records(range(200)), {}).message()).ops) == 200


@pytest.mark.rule("CM-19", "CM-31")
def test_without_prev_data_the_tree_must_still_hold_the_ops() -> None:
    change = one_create()
    assert verified(change.message(prev_data=None)).prev_data is None
    lie = RepoOp("create", "com.example.note/other", cid_for(record("new")), None)
    assert refused(change.message(prev_data=None, ops=(lie,))) == ("op_not_in_tree", True)


@pytest.mark.rule("CM-11")
@pytest.mark.scenario("A-16")
def test_a_commit_of_another_account_is_refused_although_it_is_signed() -> None:
    other = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    message = Change(OLD, OLD, did=other).message(did=DID)
    assert refused(message) == ("did_mismatch", False)


@pytest.mark.rule("CM-06", "CM-07", "CM-12")
@pytest.mark.scenario("A-17")
def test_a_message_that_disagrees_with_its_car_is_refused() -> None:
    change = one_create()
    assert refused(change.message(rev=SINCE)) == ("rev_mismatch", False)
    assert refused(change.message(commit=cid_for(b"x"))) == ("root_mismatch", False)
    rootless = write_car(change.commit, change.proof.items())
    assert refused(change.message(blocks=rootless)) == ("missing_commit", False)


@pytest.mark.rule("CA-03")
@pytest.mark.scenario("A-17")
def test_a_second_root_is_ignored() -> None:
    change = one_create()
    header = cbor.encode({"roots": [cbor.Link(change.commit), cbor.Link(RAW_LINK)], "version": 1})
    blocks = bytes((len(header),)) + header + change.blocks()[59:]
    assert len(verified(change.message(blocks=blocks)).ops) == 1


@pytest.mark.rule("CM-16", "FA-05")
@pytest.mark.scenario("A-19")
def test_a_rev_from_the_future_is_refused_and_desynchronizes_nothing() -> None:
    for rev in (make_tid(NOW_US + 3_600_000_000, 0), "jzzzzzzzzzzzz", "bzzzzzzzzzzzz"):
        with pytest.raises(MessageError, match="future_rev") as caught:
            verified(Change(OLD, OLD, rev=rev).message())
        assert not isinstance(caught.value, BrokenCommit)
    edge = make_tid(NOW_US + MAX_FUTURE_US, 0)
    assert verified(Change(OLD, OLD, rev=edge).message()).rev == edge


@pytest.mark.rule("SG-02", "SG-14", "FA-03")
@pytest.mark.scenario("A-20")
def test_a_foreign_key_is_a_bad_signature_whatever_else_is_wrong() -> None:
    other = PrivateKey.generate(K256, seed=b"other")
    broken = one_create().message(ops=(), prev_data=cid_for(b"x"))
    for message in (one_create().message(), broken):
        with pytest.raises(BadSignature):
            verified(message, other)


@pytest.mark.rule("D-03", "CA-05", "CA-06")
@pytest.mark.scenario("A-38")
def test_a_flaw_behind_an_authentic_commit_makes_it_broken() -> None:
    change = one_create()
    assert refused(change.message(blocks=change.blocks()[:-1])) == ("car_cut", True)
    flipped = change.blocks()[:-1] + b"\x00"
    assert refused(change.message(blocks=flipped)) == ("hash_mismatch", True)
    late = write_car(change.commit, [*change.proof.items(), (change.commit, change.commit_block)])
    assert refused(change.message(blocks=late[:-1])) == ("car_cut", False)
    assert refused(change.message(blocks=b"")) == ("car_cut", False)


@pytest.mark.rule("D-03", "CA-06", "CA-07")
def test_a_flaw_before_an_authentic_commit_makes_it_broken_as_well() -> None:
    change = one_create()
    flawed = (cid_for(b"another block"), b"a block")
    commit = (change.commit, change.commit_block)
    late = write_car(change.commit, [flawed, *change.proof.items(), commit])
    assert refused(change.message(blocks=late)) == ("hash_mismatch", True)
    forged = write_car(change.commit, [flawed, (change.commit, change.commit_block + b"\x00")])
    assert refused(change.message(blocks=forged)) == ("hash_mismatch", False)
    many = [(cid_for(b"%d" % number), b"%d" % number) for number in range(20_000)]
    far = write_car(change.commit, [flawed, *many, commit])
    assert refused(change.message(blocks=far)) == ("hash_mismatch", False)


@pytest.mark.rule("CM-03", "CM-04", "D-01", "IV-08")
@pytest.mark.scenario("A-27")
def test_the_limits_of_a_commit_hold_on_both_sides() -> None:
    change = Change({}, some_records(range(201)))
    assert refused(change.message()) == ("too_many_ops", True)
    change = one_create()
    size = 2_000_000 - len(change.blocks()) - 3 - 36
    filler = bytes(size)
    parts = [(change.commit, change.commit_block), *change.proof.items(), *change.records.items()]
    wanted = {op.cid for op in change.ops} | change.proof.keys() | {change.commit}
    kept = [(cid, block) for cid, block in parts if cid in wanted]
    full = write_car(change.commit, [*kept, (cid_for(filler, codec=0x55), filler)])
    assert len(full) == 2_000_000
    assert len(verified(change.message(blocks=full)).ops) == 1
    filler += b"\x00"
    over = write_car(change.commit, [*kept, (cid_for(filler, codec=0x55), filler)])
    assert refused(change.message(blocks=over)) == ("blocks_too_big", True)


@pytest.mark.rule("CM-08", "CA-06")
@pytest.mark.scenario("A-38")
def test_a_commit_block_that_is_not_what_its_cid_says_is_refused() -> None:
    change = one_create()
    for block in (change.commit_block + b"\x00", one_create().commit_block[:-1], b""):
        parts = [(change.commit, block), *change.proof.items(), *change.records.items()]
        message = change.message(blocks=write_car(change.commit, parts))
        assert refused(message) == ("hash_mismatch", False)
        sync = change.sync_message(blocks=write_car(change.commit, parts[:1]))
        with pytest.raises(MessageError, match="hash_mismatch"):
            verify_sync(sync, KEY.public, now_us=NOW_US)


def minus_proof(change: Change) -> dict[str, Any]:
    change.proof.pop(next(cid for cid in change.proof if cid != change.data))
    return {}


def minus_record(change: Change) -> dict[str, Any]:
    change.records.clear()
    return {}


def wrong_layer(change: Change) -> dict[str, Any]:
    path = change.ops[0].path.encode()
    keys = sorted([*keys_by_layer(1, 1), path])
    block = write_node(keys, [change.ops[0].cid or b""] * 2, [None] * 3)
    change.proof[cid_for(block)] = block
    change.sign(cid_for(block))
    return {}


def create(path: str, block: bytes) -> RepoOp:
    return RepoOp("create", path, cid_for(block), None)


def with_ops(*ops: RepoOp) -> Lie:
    return lambda change: {"ops": ops}


def with_more(op: RepoOp) -> Lie:
    return lambda change: {"ops": (*change.ops, op)}


NEW = f"{NOTE}/new"
LIES: list[tuple[Lie, str]] = [
    (lambda change: {"prev_data": mst.EMPTY_ROOT}, "inversion_mismatch"),
    (lambda change: {"prev_data": RAW_LINK}, "bad_prev_data"),
    (lambda change: {"since": "yesterday\x00"}, "bad_since"),
    (with_more(create(f"{NOTE}/no", b"x")), "op_not_in_tree"),
    (with_more(create(f"{NOTE}/1", record("note 1"))), "missing_node"),
    (with_more(create(f"{NOTE}/..", b"x")), "bad_path"),
    (with_ops(create(NEW, b"other")), "op_not_in_tree"),
    (with_ops(RepoOp("delete", NEW, None, RAW_LINK)), "delete_not_in_tree"),
    (with_ops(RepoOp("update", NEW, cid_for(record("new")), RAW_LINK)), "inversion_mismatch"),
    (with_ops(RepoOp("move", NEW, None, None)), "bad_op"),
    (minus_proof, "missing_node"),
    (minus_record, "missing_record"),
    (wrong_layer, "wrong_layer"),
]


@pytest.mark.rule("D-03", "IV-03", "IV-05", "IV-09", "CM-20", "CM-29", "CM-32")
@pytest.mark.scenario("A-14", "A-27")
@pytest.mark.parametrize(("lie", "reason"), LIES)
def test_an_authentic_commit_that_lies_is_broken(lie: Lie, reason: str) -> None:
    change = one_create()
    changed = lie(change)
    assert refused(change.message(**changed)) == (reason, True)


@pytest.mark.rule("D-04", "CM-34")
@pytest.mark.scenario("A-27")
def test_ops_without_net_effect_advance_the_chain_and_emit_nothing() -> None:
    path, cid = "com.example.note/1", cid_for(record("note 1"))
    change = Change(OLD, OLD)
    change.ops = [RepoOp("update", path, cid, cid)]
    change.proof = change.nodes
    assert verified(change.message()).ops == ()
    gone = "com.example.note/gone"
    change.ops = [RepoOp("create", gone, RAW_LINK, None), RepoOp("delete", gone, None, None)]
    assert verified(change.message()).ops == ()


@pytest.mark.rule("D-05", "IV-02")
def test_the_order_of_the_ops_does_not_matter() -> None:
    after = some_records(range(50, 150)) | {"com.example.note/60": record("x")}
    change = Change(OLD, after)
    assert verified(change.message(ops=tuple(change.ops[::-1]))) == verified(change.message())


@pytest.mark.rule("D-01", "CM-05", "CM-35", "FA-10", "RC-01")
@pytest.mark.scenario("A-33")
def test_a_record_over_the_limit_loses_its_block_and_its_siblings_stay() -> None:
    limit, over = bytes(1_048_576), bytes(1_048_577)
    for block, kept, reason in ((limit, limit, None), (over, None, "too_big")):
        new = {"com.example.note/new": record("new"), "com.example.note/big": block}
        big, small = verified(Change(OLD, OLD | new).message()).ops
        assert (big.cid, big.block, big.reason) == (cid_for(block), kept, reason)
        assert (small.block, small.reason) == (record("new"), None)


@pytest.mark.rule("CA-14", "D-03")
@pytest.mark.scenario("A-37")
def test_one_block_at_many_paths_is_left_to_a_fetch() -> None:
    block = bytes(1_000_000)
    most = {f"com.example.note/big{n}": block for n in range(8)}
    assert len(verified(Change(OLD, OLD | most).message()).ops) == 8
    over = most | {"com.example.note/big8": block}
    assert refused(Change(OLD, OLD | over).message()) == ("records_too_big", True)


@pytest.mark.rule("D-09", "MS-18")
def test_a_record_link_of_another_form_counts_as_no_record() -> None:
    path = "com.example.note/new"
    good = cid_for(record("new"))
    forms: list[tuple[bytes | None, bytes | None, list[str], int]] = [
        (None, RAW_LINK, [], 1),
        (good, RAW_LINK, ["delete"], 1),
        (RAW_LINK, good, ["create"], 0),
        (RAW_LINK, None, [], 0),
    ]
    for before, after, actions, skipped in forms:
        old = {b"com.example.note/0": good} | ({path.encode(): before} if before else {})
        new = {b"com.example.note/0": good} | ({path.encode(): after} if after else {})
        change = Change({}, {})
        change.prev_data = mst.build(old)[0]
        root, change.proof = mst.build(new)
        change.sign(root)
        action = "create" if before is None else "delete" if after is None else "update"
        change.ops = [RepoOp(action, path, after, before)]
        change.records = {good: record("new")}
        result = verified(change.message())
        assert [op.action for op in result.ops] == actions
        assert result.skipped == ("record_link",) * skipped


@pytest.mark.rule("MS-21")
@pytest.mark.scenario("A-37")
def test_one_record_at_several_paths_and_moved_is_handled_path_by_path() -> None:
    block = record("same")
    before = OLD | {"com.example.note/a": block}
    after = OLD | {"com.example.note/b": block, "com.example.note/c": block}
    ops = verified(Change(before, after).message()).ops
    assert [(op.action, op.rkey, op.block) for op in ops] == [
        ("delete", "a", None),
        ("create", "b", block),
        ("create", "c", block),
    ]


@pytest.mark.rule("CM-36", "CA-07", "CA-09")
@pytest.mark.scenario("A-39")
def test_extra_blocks_and_any_order_are_accepted() -> None:
    change = one_create()
    extras = [(cid_for(b"\xff%d" % n), b"\xff%d" % n) for n in range(5_000)]
    records = [(cid, block) for cid, block in change.records.items() if block == record("new")]
    parts = [*extras, *records, *change.proof.items(), (change.commit, change.commit_block)]
    assert len(verified(change.message(blocks=write_car(change.commit, parts))).ops) == 1


@pytest.mark.rule("SN-01", "SN-03", "SN-04")
def test_a_sync_event_proves_did_rev_and_data() -> None:
    change = Change(OLD, OLD)
    result = verify_sync(change.sync_message(), KEY.public, now_us=NOW_US)
    assert result == VerifiedSync(1, DID, REV, change.data, change.commit_block)
    for changed, reason in (
        ({"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}, "did_mismatch"),
        ({"rev": SINCE}, "rev_mismatch"),
        ({"blocks": b""}, "car_cut"),
    ):
        with pytest.raises(MessageError, match=reason):
            verify_sync(change.sync_message(**changed), KEY.public, now_us=NOW_US)
    with pytest.raises(BadSignature):
        other = PrivateKey.generate(K256, seed=b"other").public
        verify_sync(change.sync_message(), other, now_us=NOW_US)
    with pytest.raises(MessageError, match="future_rev"):
        verify_sync(change.sync_message(), KEY.public, now_us=NOW_US - 3_600_000_000)


@pytest.mark.rule("SN-02", "D-01", "D-03")
def test_a_sync_event_may_have_ten_thousand_bytes_and_no_flaw() -> None:
    change = Change(OLD, OLD)
    commit = (change.commit, change.commit_block)
    size = 10_000 - len(write_car(change.commit, [commit])) - 36 - 2
    for extra, reason in ((0, None), (1, "sync_too_big")):
        filler = bytes(size + extra)
        blocks = write_car(change.commit, [commit, (cid_for(filler), filler)])
        message = change.sync_message(blocks=blocks)
        if reason is None:
            assert verify_sync(message, KEY.public, now_us=NOW_US).rev == REV
        else:
            with pytest.raises(BrokenCommit, match=reason):
                verify_sync(message, KEY.public, now_us=NOW_US)
    cut = change.sync_message(blocks=write_car(change.commit, [commit]) + b"\x05")
    with pytest.raises(BrokenCommit, match="car_cut"):
        verify_sync(cut, KEY.public, now_us=NOW_US)


@pytest.mark.rule("FA-14", "IV-07")
@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_and_never_crash(data: st.DataObject) -> None:
    message = one_create().message()
    blocks = bytearray(message.blocks)
    for _ in range(data.draw(st.integers(1, 3))):
        blocks[data.draw(st.integers(0, len(blocks) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(blocks[: data.draw(st.integers(0, len(blocks)))])
    honest = verified(message)
    for damaged in (bytes(blocks), cut):
        try:
            result = verified(one_create().message(blocks=damaged))
        except ProtocolError:
            continue
        assert result == honest
