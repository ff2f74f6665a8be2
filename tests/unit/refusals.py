"""One frame for every reason for which something is refused, and some exports."""

from collections.abc import Callable
from dataclasses import replace

from sync.atproto import cbor
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.frame import MAX_FRAME_BYTES, RepoOp, write_frame
from sync.atproto.keys import PrivateKey
from sync.atproto.node import write_node
from sync.atproto.syntax import make_tid
from tests.unit.captures import frame_of
from tests.unit.repos import SINCE, Change, keys_by_layer, record, some_records

NOTE = "com.example.note"
NEW = f"{NOTE}/new"
OLD = some_records(range(20))
LEAF = cid_for(record("leaf"))
RAW = cid_for(b"raw", codec=0x55)
FORGER = PrivateKey.generate("p256", seed=b"forger")
# Of a CAR with one root of the usual form.
HEADER_BYTES = 59


def change() -> Change:
    """Make an honest commit of one new record."""
    return Change(OLD, OLD | {NEW: record("new")})


def told(made: Change | None = None, **fields: object) -> bytes:
    """Write a commit with fields of its body replaced."""
    return frame_of((made or change()).message(), **fields)


def with_ops(*ops: RepoOp) -> bytes:
    return frame_of(change().message(ops=ops))


def with_sections(sections: bytes) -> bytes:
    """Write a signed commit whose CAR has these sections behind the commit's."""
    made = change()
    return frame_of(made.message(blocks=commit_car(made) + sections))


def without(part: str) -> bytes:
    """Write a commit that lacks its `proof` or its `records`."""
    made = change()
    setattr(made, part, {})
    return frame_of(made.message())


def with_commit(**fields: object) -> bytes:
    """Write a commit object with fields replaced, under its own CID."""
    made = change()
    block = cbor.encode({**cbor.decode(made.commit_block), **fields})
    made.commit, made.commit_block = cid_for(block), block
    return frame_of(made.message())


def with_tree(*blocks: bytes) -> bytes:
    """Write a signed commit that deletes a record from a tree of these blocks, the root first."""
    made = Change({f"{NOTE}/x": record("x")}, {})
    made.proof = {cid_for(block): block for block in blocks}
    made.sign(cid_for(blocks[0]))
    return frame_of(made.message())


def sync_with(sections: bytes) -> bytes:
    made = change()
    return frame_of(made.sync_message(blocks=commit_car(made) + sections))


def commit_car(made: Change) -> bytes:
    return write_car(made.commit, [(made.commit, made.commit_block)])


def section(block: bytes, cid: bytes | None = None) -> bytes:
    """Write one block as it stands in a CAR, under its own CID or another."""
    return write_car(LEAF, [(cid or cid_for(block), block)])[HEADER_BYTES:]


def node(
    *entries: tuple[bytes, int], left: bytes | None = None, right: bytes | None = None
) -> bytes:
    """Write a node of (key suffix, prefix length) entries, right or wrong."""
    parts = [{"k": k, "p": p, "t": _link(right), "v": cbor.Link(LEAF)} for k, p in entries]
    return cbor.encode({"e": parts, "l": _link(left)})


def empty_below() -> bytes:
    [key] = keys_by_layer(1, 1)
    return with_tree(node((key, 0), right=cid_for(node())), node())


def too_high_below() -> bytes:
    low, high = sorted(keys_by_layer(1, 2))
    below = node((high, 0))
    return with_tree(node((low, 0), right=cid_for(below)), below)


def many_blocks() -> bytes:
    return with_sections(b"".join(section(b"%d" % number) for number in range(20_001)))


def large_records() -> bytes:
    text = record("x" * 1_000_000)
    return frame_of(Change({}, {f"{NOTE}/{number}": text for number in range(9)}).message())


[LOW_KEY] = keys_by_layer(0, 1)
CREATES = [RepoOp("create", f"{NOTE}/{number}", LEAF, None) for number in range(201)]

# By reason: how to make a frame that is refused for it, and the rule it breaks.
FRAMES: dict[str, tuple[Callable[[], bytes], str]] = {
    # the stream
    "bad_frame": (lambda: b"\xa1", "ES-12"),
    "frame_too_big": (lambda: bytes(MAX_FRAME_BYTES + 1), "ES-15"),
    "error_frame": (lambda: write_frame("error", {"error": "ConsumerTooSlow"}), "ES-08"),
    "info_message": (lambda: write_frame("#info", {"name": "Hello"}), "MT-06"),
    "unknown_message": (lambda: write_frame("#future", {"seq": 1}), "ES-10"),
    # the form of a message
    "bad_did": (lambda: told(repo="did:plc:"), "MT-02"),
    "bad_field": (lambda: told(blocks="text"), "MT-01"),
    "bad_seq": (lambda: told(seq=0), "CU-01"),
    "too_many_items": (lambda: told(more=[{}] * 100_001), "ES-19"),
    # what is seen before the signature, and that
    "bad_car_header": (lambda: told(blocks=b"\x01\xa0"), "CA-02"),
    "bad_commit": (lambda: with_commit(version=2), "CM-10"),
    "did_mismatch": (lambda: told(repo="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), "CM-11"),
    "future_rev": (lambda: told(replace(change(), rev=make_tid(2**52, 0))), "CM-16"),
    "missing_commit": (lambda: told(blocks=commit_car(change())[:HEADER_BYTES]), "CM-06"),
    "rev_mismatch": (lambda: told(rev=SINCE), "CM-12"),
    "root_mismatch": (lambda: told(commit=cbor.Link(LEAF)), "CM-07"),
    "bad_signature": (lambda: told(replace(change(), key=FORGER)), "SG-02"),
    # what is behind it: fields and limits
    "bad_prev_data": (lambda: told(prevData=cbor.Link(RAW)), "CM-01"),
    "bad_since": (lambda: told(since="yesterday"), "CM-01"),
    "blocks_too_big": (lambda: with_sections(section(bytes(2_000_000))), "CM-03"),
    "sync_too_big": (lambda: sync_with(section(bytes(10_000))), "SN-02"),
    "too_many_ops": (lambda: with_ops(*CREATES), "CM-04"),
    # the CAR
    "bad_cid": (lambda: with_sections(b"\x28\x02" + bytes(39)), "CA-16"),
    "bad_varint": (lambda: with_sections(b"\xff" * 6), "CA-04"),
    "car_cut": (lambda: with_sections(b"\x7f\x01"), "CA-05"),
    "hash_mismatch": (lambda: with_sections(section(b"x", cid=LEAF)), "CA-06"),
    "too_many_blocks": (many_blocks, "CA-14"),
    # the ops
    "bad_op": (lambda: with_ops(RepoOp("rename", NEW, LEAF, None)), "CM-25"),
    "bad_path": (lambda: with_ops(RepoOp("create", "nowhere", LEAF, None)), "CM-29"),
    "missing_prev": (lambda: with_ops(RepoOp("delete", NEW, None, None)), "CM-28"),
    "delete_not_in_tree": (lambda: with_ops(RepoOp("delete", NEW, None, LEAF)), "CM-33"),
    "op_not_in_tree": (lambda: with_ops(RepoOp("create", NEW, LEAF, None)), "CM-31"),
    "inversion_mismatch": (with_ops, "IV-01"),
    "missing_record": (lambda: without("records"), "CM-32"),
    "records_too_big": (large_records, "CA-14"),
    # the tree
    "bad_node": (lambda: with_tree(b"\xa0"), "MS-01"),
    "bad_node_link": (lambda: with_tree(node(left=RAW)), "MS-15"),
    "bad_prefix": (lambda: with_tree(node((LOW_KEY, 1))), "MS-07"),
    "bad_record_link": (
        lambda: with_tree(write_node([LOW_KEY], [bytes(200)], [None] * 2)),
        "CB-08",
    ),
    "bare_root": (lambda: with_tree(node(left=LEAF)), "MS-12"),
    "empty_node": (empty_below, "MS-11"),
    "key_order": (lambda: with_tree(node((b"b/b", 0), (b"a/a", 0))), "MS-04"),
    "key_too_long": (lambda: with_tree(node((b"k" * 1_025, 0))), "MS-10"),
    "missing_node": (lambda: without("proof"), "IV-03"),
    "node_too_big": (lambda: with_tree(b"\xa2\x61e\x99\x20\x01"), "MS-16"),
    "tree_too_deep": (lambda: with_tree(node((LOW_KEY, 0), left=LEAF)), "MS-14"),
    "wrong_layer": (too_high_below, "MS-03"),
}

# Reasons of which no single frame is an example, and why.
ELSEWHERE = {
    "account_denied": "an account's PDS has to be asked",
    "bad_key": "a DID document without a usable key counts as one without a key",
    "car_too_big": "of exports",
    "chain_break": "takes two frames",
    "held_overflow": "of the database",
    "missing_block": "of exports",
    "no_key": "depends on the DID document",
    "poison_frame": "takes three connections",
    "seq_fell": "takes two frames",
    "sync_differs": "takes two frames",
    "text_frame": "captures have binary frames only",
    "too_many_collections": "of the database",
    "too_many_records": "of exports",
    "too_slow": "of exports, on the machine that verifies them",
    "unexpected_error": "of none, by intention",
    "wrong_host": "which connection brought a frame is not in the file",
}


def export_of(reason: str) -> bytes:
    """Make an export that is refused for a reason."""
    made = Change({}, OLD)
    blocks = dict(made.export_blocks())
    leaf = next(iter(made.records))
    if reason == "bad_signature":
        return Change({}, OLD, key=FORGER).export()
    if reason == "too_many_records":
        return Change({}, {f"{NOTE}/{number}": record("same") for number in range(51)}).export()
    if reason == "car_cut":
        return made.export()[:-1]
    if reason == "car_too_big":
        return made.export() + section(bytes(1 << 20))
    missing = {"missing_block": leaf, "missing_node": made.data, "missing_commit": made.commit}
    del blocks[missing[reason]]
    return write_car(made.commit, blocks.items())


def _link(cid: bytes | None) -> cbor.Link | None:
    return None if cid is None else cbor.Link(cid)
