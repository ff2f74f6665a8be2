"""Verifying whole exports: nothing missing is taken for deleted, no lie about the tree passes."""

import io
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import cbor, mst
from sync.atproto.car import write_car
from sync.atproto.cid import cid_for
from sync.atproto.export import Export, ExportLimits, Leaf, read_export
from sync.atproto.keys import K256, PrivateKey, PublicKey
from sync.atproto.node import write_node
from sync.atproto.syntax import make_tid
from sync.errors import ExportError
from sync.reconciler import CHUNK_BYTES, chunks_of
from tests.unit.repos import (
    DID,
    KEY,
    NOW_US,
    REV,
    Change,
    export_of_nodes,
    keys_by_layer,
    record,
    some_records,
)

RECORDS = some_records(range(300))
WHOLE = Change({}, RECORDS)
LIMITS = ExportLimits(max_bytes=10_000_000, max_blocks=10_000, max_records=10_000)


def exported(
    data: bytes, *, key: PublicKey | None = KEY.public, limits: ExportLimits = LIMITS
) -> Export:
    return read_export(io.BytesIO(data), DID, key, now_us=NOW_US, limits=limits)


def refused(data: bytes, *, limits: ExportLimits = LIMITS) -> str:
    with pytest.raises(ExportError) as caught:
        exported(data, limits=limits)
    return caught.value.reason


@pytest.mark.rule("CA-10", "MS-19")
def test_an_honest_export_gives_every_record_in_tree_order() -> None:
    result = exported(WHOLE.export())
    expected = sorted((path.encode(), block) for path, block in RECORDS.items())
    assert result.commit.rev == REV
    assert result.commit.data == WHOLE.data
    assert not result.skipped
    assert result.leaves == [
        Leaf("com.example.note", key.decode().partition("/")[2], cid_for(block))
        for key, block in expected
    ]
    assert [result.read_block(leaf.cid) for leaf in result.leaves] == [b for _, b in expected]


@pytest.mark.rule("CA-07", "CA-08", "CA-09")
@pytest.mark.scenario("A-39")
def test_any_order_duplicates_and_extras_are_accepted() -> None:
    extras = [(cid_for(b"x", codec=0x55), b"x"), (cid_for(b"\xff"), b"\xff")]
    blocks = [*extras, *WHOLE.export_blocks()[::-1], *WHOLE.export_blocks()]
    with tempfile.TemporaryFile() as file:
        file.write(write_car(WHOLE.commit, blocks))
        result = read_export(file, DID, KEY.public, now_us=NOW_US, limits=LIMITS)
        assert len(result.leaves) == len(RECORDS)
        assert result.read_block(result.leaves[5].cid) in RECORDS.values()


@pytest.mark.rule("MS-11")
@pytest.mark.scenario("A-46")
def test_an_empty_repo_and_a_repo_of_one_record_are_exports() -> None:
    assert exported(Change({}, {}).export()).leaves == []
    assert len(exported(Change({}, some_records([1])).export()).leaves) == 1


@pytest.mark.rule("CA-10", "CA-11", "BF-04")
@pytest.mark.scenario("A-40")
def test_any_missing_block_fails_the_export() -> None:
    blocks = WHOLE.export_blocks()
    for index in range(len(blocks)):
        without = blocks[:index] + blocks[index + 1 :]
        reason = refused(write_car(WHOLE.commit, without))
        assert reason in ("missing_commit", "missing_node", "missing_block")


@pytest.mark.rule("CA-05", "CA-17")
@pytest.mark.scenario("A-40", "A-41")
def test_a_cut_export_fails_wherever_it_is_cut() -> None:
    data = Change({}, some_records(range(5))).export()
    for size in range(len(data)):
        refused(data[:size])


@pytest.mark.rule("CA-19", "BF-04")
@pytest.mark.scenario("A-16", "A-19")
def test_did_rev_and_signature_of_an_export_are_checked() -> None:
    other = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
    assert refused(Change({}, {}, did=other).export()) == "did_mismatch"
    future = make_tid(NOW_US + 3_600_000_000, 0)
    assert refused(Change({}, {}, rev=future).export()) == "future_rev"
    stranger = Change({}, {}, key=PrivateKey.generate(K256, seed=b"other")).export()
    assert refused(stranger) == "bad_signature"
    assert exported(stranger, key=None).leaves == []


@pytest.mark.rule("CA-06")
@pytest.mark.scenario("A-38")
def test_a_block_that_does_not_match_its_cid_fails_the_export() -> None:
    blocks = WHOLE.export_blocks()
    for index in (0, 1, len(blocks) - 1):
        cid, block = blocks[index]
        lie = [*blocks[:index], (cid, block + b"\x00"), *blocks[index + 1 :]]
        assert refused(write_car(WHOLE.commit, lie)) == "hash_mismatch"


def lying_tree(*keys: bytes, children: list[bytes | None] | None = None) -> bytes:
    """Export one hand-made node, with a proper one-record node below it."""
    block = record("x")
    low = write_node([keys_by_layer(0, 1)[0]], [cid_for(block)], [None, None])
    links = children or [None] * (len(keys) + 1)
    root = write_node(list(keys), [cid_for(block)] * len(keys), links)
    nodes = {cid_for(root): root, cid_for(low): low}
    return export_of_nodes(cid_for(root), nodes, [block])


LOW = keys_by_layer(0, 1)[0]
LOW_CID = cid_for(write_node([LOW], [cid_for(record("x"))], [None, None]))
ABOVE = next(key for key in keys_by_layer(1, 50) if key > LOW)


@pytest.mark.rule("MS-03", "MS-05", "MS-12", "MS-14")
@pytest.mark.scenario("A-42", "A-43")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: lying_tree(*sorted([LOW, ABOVE])), "wrong_layer", id="wrong layer"),
        pytest.param(lambda: lying_tree(children=[LOW_CID]), "bare_root", id="bare root"),
        pytest.param(
            lambda: lying_tree(ABOVE, children=[LOW_CID, LOW_CID]), "key_order", id="shared node"
        ),
        pytest.param(
            lambda: lying_tree(LOW + b"~", children=[LOW_CID, None]), None, id="below layer 0"
        ),
        pytest.param(lambda: lying_tree(ABOVE, children=[None, LOW_CID]), "key_order", id="range"),
    ],
)
def test_a_signed_tree_that_lies_fails_the_export(
    make: Callable[[], bytes], reason: str | None
) -> None:
    found = refused(make())
    assert reason is None or found == reason


@pytest.mark.rule("D-08", "D-09", "MS-18", "MS-20")
@pytest.mark.scenario("A-30")
def test_keys_and_links_of_other_forms_are_skipped_and_the_rest_stays() -> None:
    good = record("good")
    foreign = cid_for(b"raw", codec=0x55)
    odd = [b"no slash", b"com.example.note/..", b"note/x", b"com.example.note/\xff", b"\x00",
           b"com.example.note/a/b", b"com.example.note/" + b"a" * 513]  # fmt: skip
    leaves = dict.fromkeys([*odd, b"com.example.note/self"], cid_for(good))
    leaves |= {b"com.example.note/raw": foreign, b"com.example.note/sha1": b"\x01\x71\x11\x01a"}
    root, nodes = mst.build(leaves)
    result = exported(export_of_nodes(root, nodes, [good]))
    assert result.leaves == [Leaf("com.example.note", "self", cid_for(good))]
    assert result.skipped == {"bad_path": len(odd), "record_link": 2}


@pytest.mark.rule("D-01", "CM-05")
@pytest.mark.scenario("A-33")
def test_a_record_over_the_limit_is_listed_but_not_read() -> None:
    big = {"com.example.note/big": bytes(1_048_577), "com.example.note/most": bytes(1_048_576)}
    result = exported(Change({}, big).export())
    assert [result.read_block(leaf.cid) is None for leaf in result.leaves] == [True, False]


@pytest.mark.rule("CA-14")
@pytest.mark.scenario("A-37")
def test_one_block_at_many_paths_counts_as_often_as_it_would_be_stored() -> None:
    block = bytes(1_000_000)
    data = Change({}, {f"com.example.note/{n}": block for n in range(11)}).export()
    limits = replace(LIMITS, max_bytes=11_000_000)
    assert len(exported(data, limits=limits).leaves) == 11
    assert refused(data, limits=replace(limits, max_bytes=10_999_999)) == "records_too_big"


def test_large_records_are_loaded_in_short_chunks() -> None:
    big = {f"com.example.note/{n}": b"%02d" % n + bytes(1_000_000) for n in range(20)}
    result = exported(
        Change({}, big | RECORDS).export(), limits=replace(LIMITS, max_bytes=30_000_000)
    )
    chunks = list(chunks_of(result, result.leaves))
    assert [leaf for chunk in chunks for leaf in chunk] == result.leaves
    sizes = [sum(result.block_bytes(leaf.cid) for leaf in chunk) for chunk in chunks]
    assert max(sizes) < CHUNK_BYTES + 1_048_576


@pytest.mark.rule("CA-13", "CA-14")
def test_blocks_that_nothing_links_are_not_remembered() -> None:
    extras = [(cid_for(b"\xff%d" % n), b"\xff%d" % n) for n in range(1_000)]
    data = write_car(WHOLE.commit, [*WHOLE.export_blocks(), *extras])
    assert len(exported(data)._index) == len(RECORDS)


@pytest.mark.rule("CA-12")
def test_links_from_records_to_elsewhere_are_not_followed() -> None:
    links = [cbor.Link(cid_for(b"a blob", codec=0x55)), cbor.Link(cid_for(b"of somebody else"))]
    block = cbor.encode({"$type": "com.example.note", "links": links})
    result = exported(Change({}, {"com.example.note/a": block}).export())
    assert result.read_block(result.leaves[0].cid) == block


@pytest.mark.rule("MS-21")
def test_a_block_may_be_node_and_record_at_once() -> None:
    node = write_node([b"com.example.note/self"], [cid_for(record("x"))], [None, None])
    records = {"com.example.note/a": node, "com.example.note/self": record("x")}
    result = exported(Change({}, records).export())
    assert result.read_block(result.leaves[0].cid) == node


@pytest.mark.rule("CA-14")
@pytest.mark.scenario("A-39")
def test_bytes_blocks_and_records_are_limited() -> None:
    data = WHOLE.export()
    exact = ExportLimits(
        max_bytes=len(data), max_blocks=len(WHOLE.export_blocks()), max_records=len(RECORDS)
    )
    assert len(exported(data, limits=exact).leaves) == len(RECORDS)
    assert refused(data, limits=replace(exact, max_bytes=len(data) - 1)) == "car_too_big"
    assert refused(data, limits=replace(exact, max_blocks=5)) == "too_many_blocks"
    assert refused(data, limits=replace(exact, max_records=299)) == "too_many_records"


@pytest.mark.rule("CA-14", "D-01")
def test_the_time_of_the_processor_is_limited_wherever_it_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(spent))
    looks = len(WHOLE.export_blocks()) // 64 + len(RECORDS) // 64 + 2
    assert len(exported(WHOLE.export(), limits=replace(LIMITS, max_cpu_s=looks)).leaves) == 300
    for seconds in (0, looks // 2, looks - 1):
        limits = replace(LIMITS, max_cpu_s=seconds)
        assert refused(WHOLE.export(), limits=limits) == "too_slow"


def test_a_huge_block_in_the_place_of_a_node_is_not_read() -> None:
    huge = bytes(10_000_001)
    limits = replace(LIMITS, max_bytes=20_000_000)
    data = export_of_nodes(cid_for(huge), {cid_for(huge): huge})
    assert refused(data, limits=limits) == "missing_node"


@pytest.mark.rule("FA-14")
@settings(max_examples=300)
@given(st.data())
def test_damaged_exports_are_refused_and_never_crash(data: st.DataObject) -> None:
    blocks = bytearray(Change({}, some_records(range(20))).export())
    for _ in range(data.draw(st.integers(1, 3))):
        blocks[data.draw(st.integers(0, len(blocks) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = exported(bytes(blocks))
    except ExportError:
        return
    assert len(result.leaves) == 20


@pytest.mark.rule("FA-14")
@given(st.lists(st.binary(max_size=80), max_size=4), st.binary(max_size=80))
def test_random_blocks_behind_a_signed_commit_never_crash(blocks: list[bytes], root: bytes) -> None:
    nodes = {cid_for(block): block for block in [b"\xa2\x61e" + root, *blocks]}
    with pytest.raises(ExportError):
        exported(export_of_nodes(cid_for(b"\xa2\x61e" + root), nodes))


@pytest.mark.rule("MS-19", "BF-04", "MS-04")
@pytest.mark.parametrize(
    "make",
    [
        lambda: lying_tree(ABOVE, children=[None, LOW_CID]),
        lambda: lying_tree(ABOVE, children=[LOW_CID, LOW_CID]),
        lambda: lying_tree(*sorted([LOW, ABOVE])),
        lambda: lying_tree(children=[LOW_CID]),
        lambda: lying_tree(LOW + b"~", children=[LOW_CID, None]),
    ],
)
def test_the_rebuild_catches_what_the_walk_might_miss(
    make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mst, "check_node", lambda node, *, layer, low, high: 0)
    assert refused(make()) in ("root_mismatch", "key_order")
