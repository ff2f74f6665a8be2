"""Undo one change on its partial tree: the short way to what inversion.py does (rules IV-*).

Nearly every commit changes one record. Every node on the way to its key is opened and checked as
on the long way; then one node gets another list of entries, and those above it another link. Where
a key goes that stood between two subtrees they are joined, where it comes back one is split.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from sync.atproto.cid import cid_for
from sync.atproto.mst import MAX_LAYER, TreeBuilder, check_layers, check_place, key_layer
from sync.atproto.node import (
    MstError,
    Node,
    read_node,
    replace_child,
    write_changed_node,
    write_node,
)
from sync.atproto.ops import Change


class _Place(NamedTuple):
    """Where in an opened node the changed key is, or the gap where it would be.

    `low` and `high` are the keys beside, those of the nodes above included.
    """

    node: Node
    layer: int
    at: int
    low: bytes | None
    high: bytes | None


# The nodes above, from the root on: block, contents, and which child leads down.
_Path = list[tuple[bytes, Node, int]]
# Keys, values and children of a node in the tree before.
_Parts = tuple[list[bytes], list[bytes], list[bytes | None]]


def undo_one(root: bytes, blocks: Mapping[bytes, bytes], change: Change) -> bytes | None:
    """Return the root before a change; None where the tree gets lower or higher by undoing it.

    Raises MstError as invert() does.
    """
    return _Descent(blocks, change).run(root)


class _Descent:
    """The way down to one changed key, and what is to be done there."""

    def __init__(self, blocks: Mapping[bytes, bytes], change: Change) -> None:
        self._blocks = blocks
        self._key = change.key
        self._change = change

    def run(self, root: bytes) -> bytes | None:
        change = self._change
        is_deleted = change.after is None and change.before is not None
        own = restored_layer(self._key) if is_deleted else None
        path, place, is_found = self._descend(root, own)
        if is_found:
            check_present(change, place.node.values[place.at])
            before = change.before
            parts = self._take_out(place) if before is None else _replace(place, before)
        else:
            check_absent(change)
            if own is None or change.before is None:
                return root
            if own > place.layer:
                return None
            parts = self._put_back(place, own, change.before)
        if not (path or parts[0]):
            return None
        if not parts[0] and parts[2][0] is None:
            return _relink(path, None)
        return _relink(path, cid_for(write_changed_node(place.node, place.at, *parts)))

    def _descend(self, root: bytes, own: int | None) -> tuple[_Path, _Place, bool]:
        """Open the nodes down to the key, to its own layer, or to where no node is any more."""
        key = self._key
        path: _Path = []
        cid, layer, low, high = root, None, None, None
        while True:
            node, layer = self._open(cid, layer, low, high)
            keys = node.keys
            index = bisect_left(keys, key)
            if index:
                low = keys[index - 1]
            if index < len(keys):
                if keys[index] == key:
                    high = keys[index + 1] if index + 1 < len(keys) else high
                    return path, _Place(node, layer, index, low, high), True
                high = keys[index]
            child = node.children[index]
            if child is None or layer == own:
                return path, _Place(node, layer, index, low, high), False
            path.append((self._blocks[cid], node, index))
            cid = child
            layer -= 1

    def _open(
        self, cid: bytes, layer: int | None, low: bytes | None, high: bytes | None
    ) -> tuple[Node, int]:
        block = self._blocks.get(cid)
        if block is None:
            raise MstError("missing_node", rule="IV-03")
        node = read_node(block)
        return node, check_place(node, layer=layer, low=low, high=high)

    def _take_out(self, place: _Place) -> _Parts:
        """Take the key out of its node, and join the subtrees beside it."""
        (keys, values, children, _), layer, index, low, high = place
        check_layers(keys[1:], layer)
        left, right = children[index], children[index + 1]
        if left is None or right is None:
            child = left or right
        else:
            child = self._join(left, right, layer - 1, low, high)
        return (
            keys[:index] + keys[index + 1 :],
            values[:index] + values[index + 1 :],
            [*children[:index], child, *children[index + 2 :]],
        )

    def _put_back(self, place: _Place, own: int, before: bytes) -> _Parts:
        """Put the key back into a gap, which is of its own layer or has no child."""
        (keys, values, children, _), layer, index, low, high = place
        if own < layer:
            builder = TreeBuilder()
            builder.add_leaf(self._key, before, layer=own)
            child = builder.finish_below(layer)
            return keys, values, [*children[:index], child, *children[index + 1 :]]
        check_layers(keys[1:], layer)
        left = right = None
        if (child := children[index]) is not None:
            left, right = self._split(child, layer - 1, low, high)
        return (
            [*keys[:index], self._key, *keys[index:]],
            [*values[:index], before, *values[index:]],
            [*children[:index], left, right, *children[index + 1 :]],
        )

    def _join(
        self, left: bytes, right: bytes, layer: int, low: bytes | None, high: bytes | None
    ) -> bytes | None:
        """Make one subtree of the two on both sides of the key."""
        one, _ = self._open(left, layer, low, self._key)
        two, _ = self._open(right, layer, self._key, high)
        check_layers(one.keys[1:] + two.keys[1:], layer)
        left_child, right_child = one.children[-1], two.children[0]
        if left_child is None or right_child is None:
            child = left_child or right_child
        else:
            low = one.keys[-1] if one.keys else low
            high = two.keys[0] if two.keys else high
            child = self._join(left_child, right_child, layer - 1, low, high)
        children = [*one.children[:-1], child, *two.children[1:]]
        return _write((one.keys + two.keys, one.values + two.values, children))

    def _split(
        self, cid: bytes, layer: int, low: bytes | None, high: bytes | None
    ) -> tuple[bytes | None, bytes | None]:
        """Make two subtrees of one, of what is before and of what is after the key."""
        (keys, values, children, _), _ = self._open(cid, layer, low, high)
        check_layers(keys[1:], layer)
        index = bisect_left(keys, self._key)
        if index:
            low = keys[index - 1]
        if index < len(keys):
            high = keys[index]
        left = right = None
        if (child := children[index]) is not None:
            left, right = self._split(child, layer - 1, low, high)
        return (
            _write((keys[:index], values[:index], [*children[:index], left])),
            _write((keys[index:], values[index:], [right, *children[index + 1 :]])),
        )


def _replace(place: _Place, before: bytes) -> _Parts:
    """Put another link in the key's place."""
    (keys, values, children, _), layer, index, _, _ = place
    check_layers(keys[1:], layer)
    return keys, [*values[:index], before, *values[index + 1 :]], children


def _write(parts: _Parts) -> bytes | None:
    """Write a node and return its CID; one without keys and child is none."""
    return cid_for(write_node(*parts)) if parts[0] or parts[2][0] is not None else None


def _relink(path: _Path, link: bytes | None) -> bytes | None:
    """Link a node's new form, or none, from those above it; bare ones go where nothing is left."""
    for block, node, index in reversed(path):
        if link is not None or node.keys:
            link = cid_for(replace_child(block, node, index, link))
    return link


def check_present(change: Change, value: bytes) -> None:
    """Make sure that the link found in the tree is the one after the change (IV-05)."""
    if change.after is None:
        raise MstError("delete_not_in_tree", "a deleted key is still there", rule="CM-33")
    if change.after != value:
        raise MstError("op_not_in_tree", "the tree links another record", rule="CM-31")


def check_absent(change: Change) -> None:
    """Make sure that a key which is not in the tree is not to be there (IV-05)."""
    if change.after is not None:
        raise MstError("op_not_in_tree", "the tree lacks the record's key", rule="CM-31")


def restored_layer(key: bytes) -> int:
    """Return the layer of a key that was deleted, unless no honest tree is as deep (MS-17)."""
    layer = key_layer(key)
    if layer > MAX_LAYER:
        raise MstError("tree_too_deep", f"layer {layer}", rule="MS-17")
    return layer
