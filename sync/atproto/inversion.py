"""Undo a commit's changes on its partial tree, to learn the root it started from (rules IV-*).

All changes are undone at once, so their order cannot matter (IV-02, D-05):

1. Open every node on the way to a changed key, and lay its contents out as one sequence in key
   order: leaves, and subtrees that stay closed, known by their CID only.
2. Put the old leaves in the place of the new ones.
3. Open a closed subtree only where it must be taken apart: beside another subtree, or beside a
   leaf that does not lie above it.
4. Build the one tree that this sequence has.

A node is opened only if the tree before the commit cannot contain it, so a minimal proof is
enough, and a node that is missing then is really needed (IV-03).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sync.atproto.mst import MAX_LAYER, TreeBuilder, check_node, key_layer, load_node
from sync.atproto.node import MstError
from sync.atproto.ops import Change


class _Leaf(NamedTuple):
    layer: int
    key: bytes
    value: bytes


class _Subtree(NamedTuple):
    """A closed subtree and the keys between which it lies in the tree after the commit."""

    layer: int | None
    cid: bytes
    low: bytes | None
    high: bytes | None


_Items = list[_Leaf | _Subtree]


def invert(root: bytes, blocks: Mapping[bytes, bytes], changes: Sequence[Change]) -> bytes:
    """Return the root of the tree before the changes, which must be in key order.

    Raises MstError when the tree does not hold what the changes say, breaks a rule, or lacks a
    node that is needed.
    """
    if not changes:
        return root
    items: _Items = []
    _lay_out(_Subtree(None, root, None, None), blocks, changes, items)
    items = _settle(items, blocks)
    if len(items) == 1 and isinstance(items[0], _Subtree):
        return _prune(items[0], blocks)
    builder = TreeBuilder()
    for item in items:
        if isinstance(item, _Leaf):
            builder.add_leaf(item.key, item.value, layer=item.layer)
        elif item.layer is not None:
            builder.add_subtree(item.cid, layer=item.layer)
    return builder.finish()


def _lay_out(
    subtree: _Subtree, blocks: Mapping[bytes, bytes], changes: Sequence[Change], items: _Items
) -> None:
    """Append the contents of a subtree with the given changes, all inside it, undone."""
    contents = _open(subtree, blocks)
    # Leaves and gaps alternate; a gap is a subtree or nothing. `waiting` is the gap's subtree.
    waiting: _Subtree | None = None
    start, count = 0, len(changes)
    for item in contents:
        if isinstance(item, _Subtree):
            waiting = item
            continue
        end = start
        while end < count and changes[end].key < item.key:
            end += 1
        _fill_gap(waiting, blocks, changes[start:end], items)
        waiting = None
        start = end
        if start < count and changes[start].key == item.key:
            _undo_present(changes[start], item, items)
            start += 1
        else:
            items.append(item)
    _fill_gap(waiting, blocks, changes[start:], items)


def _open(subtree: _Subtree, blocks: Mapping[bytes, bytes]) -> _Items:
    """Read a subtree's top node and return its leaves and child subtrees in key order."""
    node = load_node(subtree.cid, blocks.get)
    layer = check_node(node, layer=subtree.layer, low=subtree.low, high=subtree.high)
    items: _Items = []
    low = subtree.low
    child = node.children[0]
    for key, value, next_child in zip(node.keys, node.values, node.children[1:], strict=True):
        if child is not None:
            items.append(_Subtree(layer - 1, child, low, key))
        items.append(_Leaf(layer, key, value))
        low, child = key, next_child
    if child is not None:
        items.append(_Subtree(layer - 1, child, low, subtree.high))
    return items


def _fill_gap(
    subtree: _Subtree | None,
    blocks: Mapping[bytes, bytes],
    changes: Sequence[Change],
    items: _Items,
) -> None:
    """Append what lies between two leaves: a closed subtree, an opened one, or old leaves."""
    if subtree is None:
        for change in changes:
            _undo_absent(change, items)
    elif changes:
        _lay_out(subtree, blocks, changes, items)
    else:
        items.append(subtree)


def _undo_present(change: Change, leaf: _Leaf, items: _Items) -> None:
    if change.after is None:
        raise MstError("delete_not_in_tree", "a deleted key is still there", rule="CM-33")
    if change.after != leaf.value:
        raise MstError("op_not_in_tree", "the tree links another record", rule="CM-31")
    if change.before is not None:
        items.append(_Leaf(leaf.layer, leaf.key, change.before))


def _undo_absent(change: Change, items: _Items) -> None:
    if change.after is not None:
        raise MstError("op_not_in_tree", "the tree lacks the record's key", rule="CM-31")
    if change.before is not None:
        layer = key_layer(change.key)
        if layer > MAX_LAYER:
            raise MstError("tree_too_deep", f"layer {layer}", rule="MS-17")
        items.append(_Leaf(layer, change.key, change.before))


def _settle(items: _Items, blocks: Mapping[bytes, bytes]) -> _Items:
    """Open subtrees until each one stands between leaves of higher layers, or the ends."""
    settled: _Items = []
    items.reverse()
    while items:
        item = items.pop()
        last = settled[-1] if settled else None
        if isinstance(last, _Subtree) and _layer(last) >= _layer(item):
            # `item` comes back after what is in `last`, and is judged anew.
            settled.pop()
            items.append(item)
            items.extend(reversed(_open(last, blocks)))
        elif isinstance(item, _Subtree) and last is not None and _layer(item) >= _layer(last):
            items.extend(reversed(_open(item, blocks)))
        else:
            settled.append(item)
    return settled


def _layer(item: _Leaf | _Subtree) -> int:
    return item.layer or 0


def _prune(subtree: _Subtree, blocks: Mapping[bytes, bytes]) -> bytes:
    """Find the root when one subtree is all there is: nodes without entries go (IV-04)."""
    while subtree.cid in blocks:
        contents = _open(subtree, blocks)
        if len(contents) != 1 or not isinstance(contents[0], _Subtree):
            break
        subtree = contents[0]
    return subtree.cid
