"""The simulated network's tree: the protocol's one tree for its leaves, after any history."""

import random

import pytest

from sync.atproto import mst
from sync.atproto.cid import cid_for
from sync.simnet.tree import Tree


def a_key(number: int) -> bytes:
    return f"com.example.note/{number:05}".encode()


def a_value(number: int) -> bytes:
    return cid_for(b"\xa1\x61n" + bytes([number % 24]))


def test_an_empty_tree_has_the_well_known_root():
    assert Tree().cid == mst.EMPTY_ROOT
    assert Tree().put(a_key(1), a_value(1)).remove(a_key(1)).cid == mst.EMPTY_ROOT


@pytest.mark.parametrize("seed", range(5))
def test_after_any_history_the_tree_is_the_one_built_from_its_leaves(seed):
    rng = random.Random(seed)
    tree = Tree()
    leaves: dict[bytes, bytes] = {}
    for step in range(600):
        key = a_key(rng.randrange(200))
        if key in leaves and rng.random() < 0.5:
            tree = tree.remove(key)
            del leaves[key]
        else:
            leaves[key] = a_value(rng.randrange(1_000))
            tree = tree.put(key, leaves[key])
        if step % 10 == 0 or len(leaves) < 3:
            root, blocks = mst.build(leaves)
            assert tree.cid == root
            assert dict(tree.blocks()) == blocks or not leaves
    assert dict(tree.leaves()) == leaves


def test_building_at_once_gives_the_same_tree_as_growing():
    leaves = {a_key(number): a_value(number) for number in range(0, 3_000, 7)}
    grown = Tree()
    for key, value in leaves.items():
        grown = grown.put(key, value)
    assert Tree.build(leaves).cid == grown.cid == mst.build(leaves)[0]
    assert list(grown.leaves()) == sorted(leaves.items())


def test_an_older_tree_stays_as_it_was():
    old = Tree.build({a_key(number): a_value(number) for number in range(100)})
    before = dict(old.blocks())
    new = old.put(a_key(5), a_value(999)).remove(a_key(6))
    assert dict(old.blocks()) == before
    assert old.get(a_key(6)) == a_value(6)
    assert new.get(a_key(6)) is None


def test_removing_what_is_not_there_is_a_key_error():
    tree = Tree.build({a_key(number): a_value(number) for number in range(50)})
    for nobody in (Tree(), tree):
        with pytest.raises(KeyError):
            nobody.remove(b"com.example.note/absent")


def test_the_covering_blocks_hold_every_new_node_of_a_change():
    rng = random.Random(3)
    tree = Tree.build({a_key(number): a_value(number) for number in range(0, 1_000, 3)})
    for _ in range(300):
        key = a_key(rng.randrange(1_000))
        changed = tree.put(key, a_value(7)) if tree.get(key) is None else tree.remove(key)
        new = dict(changed.blocks()).keys() - dict(tree.blocks()).keys()
        assert new <= changed.covering_blocks(key).keys()
        tree = changed
