"""Undoing a commit on its partial tree: any order, minimal proofs, no lie accepted."""

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import mst
from sync.atproto.cid import cid_for
from sync.atproto.descent import undo_one
from sync.atproto.frame import RepoOp
from sync.atproto.inversion import invert, undo_all
from sync.atproto.node import MstError, read_node, replace_children, write_node
from sync.atproto.ops import Change, net_changes
from tests.unit.repos import covering_proof, keys_by_layer

A, B = cid_for(b"a"), cid_for(b"b")
# High layers are rare among real keys; here they are common, so that trees are deep and narrow.
POOL = sorted(
    [*keys_by_layer(0, 10), *keys_by_layer(1, 8), *keys_by_layer(2, 6), *keys_by_layer(3, 4)]
)

Leaves = dict[bytes, bytes]
Undo = Callable[[bytes, Mapping[bytes, bytes], Sequence[Change]], bytes]
leaves = st.dictionaries(st.sampled_from(POOL), st.sampled_from([A, B]), max_size=20)


def ops_between(before: Leaves, after: Leaves) -> list[RepoOp]:
    ops = []
    for key in before.keys() | after.keys():
        cid, prev = after.get(key), before.get(key)
        if cid != prev:
            action = "create" if prev is None else "delete" if cid is None else "update"
            ops.append(RepoOp(action, key.decode(), cid, prev))
    return ops


@pytest.mark.rule("IV-01", "IV-02", "IV-04", "D-05")
@pytest.mark.scenario("A-45")
@settings(max_examples=400)
@given(leaves, leaves, st.randoms())
def test_undoing_leads_back_to_the_old_root(
    before: Leaves, after: Leaves, rng: random.Random
) -> None:
    ops = ops_between(before, after)
    rng.shuffle(ops)
    root, blocks = mst.build(after)
    proof = covering_proof(root, blocks, [op.path.encode() for op in ops])
    assert invert(root, proof, net_changes(ops)) == mst.build(before)[0]


@pytest.mark.rule("IV-02", "IV-03")
@pytest.mark.scenario("A-45")
@settings(max_examples=400)
@given(leaves, leaves)
def test_a_minimal_proof_is_enough_and_nothing_in_it_is_superfluous(
    before: Leaves, after: Leaves
) -> None:
    """Needed are the nodes that are new and those on the way to each path; no others."""
    ops = ops_between(before, after)
    root, blocks = mst.build(after)
    old_root, old_blocks = mst.build(before)
    paths = [op.path.encode() for op in ops]
    minimal = covering_proof(root, blocks, paths, neighbours=False)
    new = {cid: block for cid, block in blocks.items() if cid not in old_blocks}
    assert invert(root, minimal | new, net_changes(ops)) == old_root
    for cid in new:
        without = {other: block for other, block in (minimal | new).items() if other != cid}
        # Where a bare node at the very top is missing, it is taken for the old root itself.
        with contextlib.suppress(MstError):
            assert invert(root, without, net_changes(ops)) != old_root


@pytest.mark.rule("IV-05", "CM-31", "CM-33")
@pytest.mark.scenario("A-14")
@settings(max_examples=200)
@given(leaves, leaves, st.data())
def test_ops_that_lie_about_the_tree_are_refused_or_lead_elsewhere(
    before: Leaves, after: Leaves, data: st.DataObject
) -> None:
    honest = ops_between(before, after)
    root, blocks = mst.build(after)
    lies = [RepoOp("create", key.decode(), A, None) for key in POOL if after.get(key) != A]
    lies += [RepoOp("delete", key.decode(), None, A) for key in after]
    lie = data.draw(st.sampled_from(lies))
    with pytest.raises(MstError, match="in_tree"):
        others = [op for op in honest if op.path != lie.path]
        invert(root, blocks, net_changes([*others, lie]))


@pytest.mark.rule("IV-01")
@pytest.mark.scenario("A-14")
def test_an_op_that_was_left_out_leads_to_another_root() -> None:
    before, after = dict.fromkeys(POOL[:10], A), dict.fromkeys(POOL[3:14], B)
    root, blocks = mst.build(after)
    honest = ops_between(before, after)
    for index in range(len(honest)):
        ops = honest[:index] + honest[index + 1 :]
        assert invert(root, blocks, net_changes(ops)) != mst.build(before)[0]


@pytest.mark.rule("CM-23")
def test_no_ops_need_no_blocks() -> None:
    assert invert(A, {}, []) == A


@pytest.mark.rule("IV-03")
def test_a_missing_root_is_named_as_missing() -> None:
    with pytest.raises(MstError, match="missing_node"):
        invert(A, {}, net_changes([RepoOp("create", POOL[0].decode(), A, None)]))


@pytest.mark.rule("D-04", "CM-33")
def test_a_record_that_came_and_went_must_not_be_in_the_tree() -> None:
    path = POOL[0].decode()
    ops = net_changes([RepoOp("create", path, A, None), RepoOp("delete", path, None, None)])
    root, blocks = mst.build({POOL[1]: A})
    assert invert(root, blocks, ops) == root
    root, blocks = mst.build({POOL[0]: A, POOL[1]: A})
    with pytest.raises(MstError, match="delete_not_in_tree"):
        invert(root, blocks, ops)


@pytest.mark.rule("CM-22")
@pytest.mark.scenario("A-46")
def test_undoing_two_hundred_creates_gives_the_empty_tree_and_back() -> None:
    full = {b"com.example.a/%d" % number: A for number in range(200)}
    root, blocks = mst.build(full)
    assert invert(root, blocks, net_changes(ops_between({}, full))) == mst.EMPTY_ROOT
    empty = {mst.EMPTY_ROOT: write_node([], [], [None])}
    assert invert(mst.EMPTY_ROOT, empty, net_changes(ops_between(full, {}))) == root


@pytest.mark.rule("IV-04")
@pytest.mark.scenario("A-45")
def test_the_top_is_pruned_even_where_only_a_cid_is_known() -> None:
    (high,) = keys_by_layer(2, 1)
    for other in (*keys_by_layer(0, 3), *keys_by_layer(1, 3)):
        before = {other: A}
        root, blocks = mst.build({other: A, high: A})
        proof = covering_proof(root, blocks, [high])
        changes = net_changes([RepoOp("create", high.decode(), A, None)])
        old_root = mst.build(before)[0]
        assert invert(root, proof, changes) == old_root
        # Below the nodes that are taken apart, the CID alone will do.
        del proof[old_root]
        assert invert(root, proof, changes) == old_root


@pytest.mark.rule("IV-06", "MS-03")
@pytest.mark.parametrize("undo", [invert, undo_all])
def test_a_key_in_the_wrong_layer_is_refused_also_where_only_others_change(undo: Undo) -> None:
    keys = sorted([*keys_by_layer(0, 1), *keys_by_layer(1, 1)])
    block = write_node(keys, [A, A], [None, None, None])
    for key in keys:
        changes = net_changes([RepoOp("create", key.decode(), A, None)])
        with pytest.raises(MstError, match="wrong_layer"):
            undo(cid_for(block), {cid_for(block): block}, changes)


def key_after(letter: str, layer: int) -> bytes:
    """Find a key that begins with a letter and lives in a layer."""
    keys = (f"com.example.note/{letter}{number}".encode() for number in range(10_000))
    return next(key for key in keys if mst.key_layer(key) == layer)


@pytest.mark.rule("IV-06", "MS-03")
@pytest.mark.parametrize("undo", [invert, undo_all])
@pytest.mark.parametrize("case", ["another link", "put back", "joined", "split"])
def test_a_key_in_the_wrong_layer_is_refused_wherever_its_node_is_taken_apart(
    undo: Undo, case: str
) -> None:
    a, wrong, b, c = (key_after(*place) for place in (("a", 1), ("b", 0), ("d", 1), ("e", 1)))
    gone, top = key_after("c", 2), key_after("f", 2)
    left = write_node([a, wrong], [A, A], [None] * 3)
    right = write_node([b, c], [A, A], [None] * 3)
    whole = write_node([a, wrong, b], [A] * 3, [None] * 4)
    if case == "another link":
        root = left
        op = RepoOp("update", a.decode(), A, B)
    elif case == "put back":
        root = left
        op = RepoOp("delete", b.decode(), None, A)
    elif case == "joined":
        root = write_node([gone, top], [A, A], [cid_for(left), cid_for(right), None])
        op = RepoOp("create", gone.decode(), A, None)
    else:
        root = write_node([top], [A], [cid_for(whole), None])
        op = RepoOp("delete", gone.decode(), None, A)
    blocks = {cid_for(block): block for block in (root, left, right, whole)}
    with pytest.raises(MstError, match="wrong_layer"):
        undo(cid_for(root), blocks, net_changes([op]))


@pytest.mark.rule("IV-06", "MS-03", "MS-13")
@pytest.mark.parametrize("undo", [invert, undo_all])
def test_a_subtree_that_skips_a_layer_is_refused_also_where_it_is_the_old_root(undo: Undo) -> None:
    (key,) = keys_by_layer(0, 1)
    high = next(k for k in keys_by_layer(2, 50) if k > key)
    low = write_node([key], [A], [None, None])
    block = write_node([high], [A], [cid_for(low), None])
    blocks = {cid_for(low): low, cid_for(block): block}
    for changed in (high, key):
        with pytest.raises(MstError, match="wrong_layer"):
            undo(cid_for(block), blocks, net_changes([RepoOp("create", changed.decode(), A, None)]))


@pytest.mark.rule("IV-06", "MS-05")
@pytest.mark.parametrize("undo", [invert, undo_all])
def test_a_node_outside_its_range_is_refused(undo: Undo) -> None:
    low = write_node([b"z"], [A], [None, None])
    block = write_node(keys_by_layer(1, 1), [A], [cid_for(low), None])
    blocks = {cid_for(low): low, cid_for(block): block}
    with pytest.raises(MstError, match="key_order"):
        undo(cid_for(block), blocks, net_changes([RepoOp("create", "com.example.a/b", A, None)]))


@pytest.mark.rule("IV-01", "IV-02", "IV-03", "IV-05")
@settings(max_examples=400)
@given(leaves, st.sampled_from(POOL), st.sampled_from([None, A, B]), st.data())
def test_one_change_is_undone_alike_on_the_short_and_on_the_long_way(
    after: Leaves, key: bytes, before: bytes | None, data: st.DataObject
) -> None:
    """Both ways are given the same proof, whole or with a node missing, and the truth or a lie."""
    claimed = data.draw(st.sampled_from([after.get(key), after.get(key), None, A]))
    change = Change(key, "", "", before, claimed)
    root, blocks = mst.build(after)
    is_whole = data.draw(st.booleans())
    proof = blocks if is_whole else covering_proof(root, blocks, [key], neighbours=False)
    missing = None if is_whole else data.draw(st.none() | st.sampled_from(sorted(proof)))
    proof = {cid: block for cid, block in proof.items() if cid != missing}

    def outcome(undo: Callable[[], bytes | None]) -> bytes | str | None:
        try:
            return undo()
        except MstError as error:
            return error.reason

    short = outcome(lambda: undo_one(root, proof, change))
    long = outcome(lambda: undo_all(root, proof, [change]))
    assert short in (long, None)
    if is_whole and isinstance(long, bytes):
        old = {k: cid for k, cid in {**after, key: before}.items() if cid is not None}
        assert long == mst.build(old)[0]


@pytest.mark.rule("IV-06", "MS-03", "MS-05", "MS-11", "MS-14")
@settings(max_examples=400)
@given(leaves, st.sampled_from(POOL), st.sampled_from([None, A, B]), st.data())
def test_a_tree_with_a_wrong_link_is_refused_on_the_short_way_where_it_is_on_the_long(
    after: Leaves, key: bytes, before: bytes | None, data: st.DataObject
) -> None:
    change = Change(key, "", "", before, after.get(key))
    root, honest = mst.build(after)
    spoilt = data.draw(st.sampled_from(sorted(honest)))
    index = data.draw(st.integers(0, len(read_node(honest[spoilt]).keys)))
    wrong = data.draw(st.none() | st.sampled_from(sorted(honest)))
    blocks = dict(honest)

    def spoil(cid: bytes) -> bytes:
        node = read_node(honest[cid])
        links: dict[int, bytes | None] = {
            at: spoil(child) for at, child in enumerate(node.children) if child is not None
        }
        if cid == spoilt:
            links[index] = wrong
        block = replace_children(node, links)
        blocks[cid_for(block)] = block
        return cid_for(block)

    root = spoil(root)
    try:
        long = undo_all(root, blocks, [change])
    except MstError:
        with contextlib.suppress(MstError):
            assert undo_one(root, blocks, change) is None
    else:
        assert undo_one(root, blocks, change) in (long, None)


def test_most_single_changes_take_the_short_way() -> None:
    full = {b"com.example.a/%d" % number: A for number in range(300)}
    root, blocks = mst.build(full)
    short = [undo_one(root, blocks, Change(key, "", "", None, A)) for key in full]
    assert sum(before is not None for before in short) > 0.97 * len(full)
