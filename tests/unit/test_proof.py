"""The proof of one record: what it must hold, and that nothing else passes for one."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto import cbor, mst
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.commit import make_commit
from sync.atproto.keys import K256, PrivateKey
from sync.atproto.node import read_node, write_node
from sync.atproto.proof import MAX_PROOF_BLOCKS, find_link, prove_record
from sync.errors import ProtocolError
from tests.unit.repos import DID, KEY, NOW_US, REV, record

OTHER_DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER_KEY = PrivateKey.generate(K256, seed=b"other")
LATE = "3zzzzzzzzzzzz"
PATHS = [f"com.example.note/{number}" for number in range(60)]
RECORDS = {path: record(path) for path in PATHS}
LEAVES = {path.encode(): cid_for(block) for path, block in RECORDS.items()}
ROOT, NODES = mst.build(LEAVES)


def way_to(path: str, root: bytes = ROOT, nodes: Mapping[bytes, bytes] = NODES) -> list[bytes]:
    """Return the CIDs of the nodes that lead to a path, found by looking at all of them."""
    found: list[bytes] = []
    cid: bytes | None = root
    while cid is not None:
        found.append(cid)
        node = read_node(nodes[cid])
        if path.encode() in node.keys:
            break
        cid = node.children[sum(key < path.encode() for key in node.keys)]
    return found


def proof(
    path: str,
    *,
    did: str = DID,
    key: PrivateKey = KEY,
    rev: str = REV,
    root: bytes = ROOT,
    without: bytes | None = None,
    extra: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Return a CAR as an honest server sends it, but for what is asked otherwise."""
    commit, block = make_commit(did, rev, root, key)
    blocks = {commit: block, **{cid: NODES[cid] for cid in way_to(path) if cid in NODES}}
    if path in RECORDS:
        blocks[cid_for(RECORDS[path])] = RECORDS[path]
    blocks |= extra or {}
    if without is not None:
        del blocks[without]
    return write_car(commit, blocks.items())


def reason(car: bytes, path: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        prove_record(car, did=DID, key=KEY.public, path=path, now_us=NOW_US)
    return caught.value.reason


@pytest.mark.parametrize("path", PATHS)
def test_a_record_is_proven(path: str) -> None:
    proven = prove_record(proof(path), did=DID, key=KEY.public, path=path, now_us=NOW_US)
    assert (proven.rev, proven.cid, proven.block) == (REV, LEAVES[path.encode()], RECORDS[path])


@pytest.mark.parametrize("path", ["com.example.note/none", "a.b.c/0", "z.z.z/z"])
def test_the_absence_of_a_record_is_proven(path: str) -> None:
    proven = prove_record(proof(path), did=DID, key=KEY.public, path=path, now_us=NOW_US)
    assert (proven.cid, proven.block) == (None, None)


def test_an_empty_repo_has_no_record() -> None:
    commit, block = make_commit(DID, REV, mst.EMPTY_ROOT, KEY)
    car = write_car(commit, {commit: block, mst.EMPTY_ROOT: write_node([], [], [None])}.items())
    proven = prove_record(car, did=DID, key=KEY.public, path=PATHS[0], now_us=NOW_US)
    assert proven.cid is None


@pytest.mark.rule("SG-02", "CM-11", "CM-16")
def test_only_the_account_s_own_signature_counts() -> None:
    path = PATHS[7]
    assert reason(proof(path, key=OTHER_KEY), path) == "bad_signature"
    assert reason(proof(path, did=OTHER_DID), path) == "did_mismatch"
    assert reason(proof(path, rev=LATE), path) == "future_rev"


@pytest.mark.rule("CA-10")
@pytest.mark.parametrize("path", [PATHS[7], "com.example.note/none"])
def test_every_node_on_the_way_is_needed(path: str) -> None:
    for cid in way_to(path):
        assert reason(proof(path, without=cid), path) == "missing_node"


@pytest.mark.rule("CM-32")
def test_the_record_s_block_is_needed_and_hashed() -> None:
    path = PATHS[7]
    cid = LEAVES[path.encode()]
    assert reason(proof(path, without=cid), path) == "missing_record"
    assert reason(proof(path, extra={cid: record("forged")}), path) == "hash_mismatch"
    forged = {cid: RECORDS[PATHS[8]]}
    assert reason(proof(path, extra=forged), path) == "hash_mismatch"


def test_the_proof_of_one_record_proves_no_other() -> None:
    car = proof(PATHS[7])
    nodes = set(way_to(PATHS[7]))
    for path in {*PATHS, "com.example.note/none"} - {PATHS[7]}:
        is_on_the_way = set(way_to(path)) <= nodes
        expected: str | None = "missing_record" if is_on_the_way else "missing_node"
        if path not in RECORDS and is_on_the_way:
            expected = None
        assert reason_or_none(car, path) == expected


@pytest.mark.rule("CM-06")
def test_the_commit_is_needed() -> None:
    commit, _ = make_commit(DID, REV, ROOT, KEY)
    assert reason(proof(PATHS[7], without=commit), PATHS[7]) == "missing_commit"


@pytest.mark.rule("MS-03", "MS-05")
def test_a_tree_that_breaks_a_rule_on_the_way_proves_nothing() -> None:
    """A server with the account's key could hide a record from some and show it to others."""
    node = read_node(NODES[ROOT])
    wrong_layer = write_node([b"com.example.note/x"], [LEAVES[PATHS[0].encode()]], [ROOT, None])
    root = cid_for(wrong_layer)
    path = PATHS[0]
    assert reason(proof(path, root=root, extra={root: wrong_layer}), path) in {
        "wrong_layer", "key_order", "tree_too_deep",
    }  # fmt: skip
    swapped = write_node(node.keys, node.values, node.children[::-1])
    root = cid_for(swapped)
    found = [reason_or_none(proof(p, root=root, extra={root: swapped, **NODES}), p) for p in PATHS]
    assert "key_order" in found


def reason_or_none(car: bytes, path: str) -> str | None:
    try:
        prove_record(car, did=DID, key=KEY.public, path=path, now_us=NOW_US)
    except ProtocolError as error:
        return error.reason
    return None


def test_a_link_that_is_no_record_s_proves_nothing() -> None:
    raw = b"\x01\x55\x12\x20" + bytes(32)
    root, nodes = mst.build({b"com.example.note/0": raw})
    commit, block = make_commit(DID, REV, root, KEY)
    car = write_car(commit, {commit: block, **nodes}.items())
    assert reason(car, "com.example.note/0") == "record_link"


def test_a_bomb_of_blocks_is_refused() -> None:
    blocks = {cid_for(cbor.encode(n)): cbor.encode(n) for n in range(MAX_PROOF_BLOCKS)}
    assert reason(proof(PATHS[7], extra=blocks), PATHS[7]) == "too_many_blocks"


_KEYS = st.sets(st.integers(0, 400).map(lambda n: b"com.example.note/%d" % n), max_size=120)


@given(_KEYS, _KEYS)
def test_every_key_of_any_tree_is_found_and_no_other(keys: set[bytes], others: set[bytes]) -> None:
    leaves = {key: cid_for(key) for key in keys}
    root, nodes = mst.build(leaves)
    for key in keys | others:
        assert find_link(root, nodes, key) == leaves.get(key)


@given(st.data(), st.binary(max_size=60))
def test_altered_proofs_are_refused_by_our_own_error_or_prove_the_same(
    data: st.DataObject, piece: bytes
) -> None:
    path = PATHS[7]
    car = proof(path)
    at = data.draw(st.integers(0, len(car)))
    end = data.draw(st.integers(at, len(car)))
    try:
        proven = prove_record(
            car[:at] + piece + car[end:], did=DID, key=KEY.public, path=path, now_us=NOW_US
        )
    except ProtocolError:
        return
    assert proven.block == RECORDS[path]
