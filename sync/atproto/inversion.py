"""Undo a commit's changes on its partial tree, to learn the root it started from (rules IV-*).

All changes are undone at once, so their order cannot matter (IV-02, D-05):

1. Open every node on the way to a changed key. Where a changed key is in the node itself, or
   comes to lie at its layer or above, lay the node out as a sequence in key order: leaves, and
   subtrees that stay closed, known by their CID only. Put the old leaves in place of the new.
2. Where only children of a node change, put their new links into its bytes; nothing else moves.
3. Open a closed subtree only where it must be taken apart: beside another subtree, or beside a
   leaf that does not lie above it.
4. Build the one tree that each sequence has.

A node is opened only if it changed or if the absence of a key must be seen in it, so a minimal
proof is enough, and a node that is missing then is really needed (IV-03).

A single change takes the short way of descent.py wherever that will do.

Of a node whose own keys stay as they are, only the first key's layer is computed: its keys are
together in the tree before as well, whose root an earlier verification has proven.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sync.atproto.cid import cid_for
from sync.atproto.descent import check_absent, check_present, restored_layer, undo_one
from sync.atproto.mst import TreeBuilder, check_layers, check_place
from sync.atproto.node import MstError, Node, read_node, replace_children
from sync.atproto.ops import Change


class _Leaf(NamedTuple):
    layer: int
    key: bytes
    value: bytes


class _Subtree(NamedTuple):
    """A closed subtree and the keys between which it lies; the root comes without a layer."""

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
    if len(changes) == 1:
        before = undo_one(root, blocks, changes[0])
        if before is not None:
            return before
    return undo_all(root, blocks, changes)


def undo_all(root: bytes, blocks: Mapping[bytes, bytes], changes: Sequence[Change]) -> bytes:
    """Do what invert() does in the way that suits any changes, of which there is one at least."""
    return _Inversion(blocks).run(_Subtree(None, root, None, None), changes)


class _Inversion:
    """One inversion: the blocks at hand, those of the commit and those made on the way."""

    def __init__(self, blocks: Mapping[bytes, bytes]) -> None:
        self._blocks = dict(blocks)

    def run(self, root: _Subtree, changes: Sequence[Change]) -> bytes:
        """Undo the changes below a root and return the root before."""
        items = self._settle(self._undo(root, changes))
        if len(items) == 1 and isinstance(items[0], _Subtree):
            return self._prune(items[0])
        return self._builder(items).finish()

    def _undo(self, subtree: _Subtree, changes: Sequence[Change]) -> _Items:
        """Return a subtree with the given changes, all inside its range, undone."""
        node, layer = self._open(subtree)
        keys = node.keys
        hits: dict[int, Change] = {}
        gaps: dict[int, _Items] = {}
        start, count = 0, len(changes)
        while start < count:
            key = changes[start].key
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                hits[index] = changes[start]
                start += 1
                continue
            end = start + 1
            while end < count and (index == len(keys) or changes[end].key < keys[index]):
                end += 1
            child = _child(node, index, subtree, layer)
            gaps[index] = self._undo_gap(child, changes[start:end])
            start = end
        # A bare node is not relinked: it may have to go, and is made anew where it is needed.
        if keys and not hits and _are_below(layer, gaps):
            return [self._relink(subtree, node, layer, gaps)]
        return _lay_out(subtree, node, layer, hits, gaps)

    def _undo_gap(self, child: _Subtree | None, changes: Sequence[Change]) -> _Items:
        """Return what lies between two leaves, with the changes there undone and settled."""
        if child is not None:
            return self._settle(self._undo(child, changes))
        return [leaf for change in changes for leaf in _undo_absent(change)]

    def _relink(
        self, subtree: _Subtree, node: Node, layer: int, gaps: Mapping[int, _Items]
    ) -> _Subtree:
        """Replace children of a node that is otherwise the same before and after."""
        children = {index: self._close(items, layer) for index, items in gaps.items()}
        block = replace_children(node, children)
        cid = cid_for(block)
        self._blocks[cid] = block
        return _Subtree(layer, cid, subtree.low, subtree.high)

    def _close(self, items: _Items, layer: int) -> bytes | None:
        """Make settled items the child of a node in a layer."""
        if len(items) == 1 and isinstance(items[0], _Subtree) and items[0].layer == layer - 1:
            return items[0].cid
        return self._builder(items).finish_below(layer)

    def _builder(self, items: _Items) -> TreeBuilder:
        builder = TreeBuilder(keep=self._blocks)
        for item in items:
            if isinstance(item, _Leaf):
                builder.add_leaf(item.key, item.value, layer=item.layer)
            else:
                builder.add_subtree(item.cid, layer=item.layer or 0)
        return builder

    def _settle(self, items: _Items) -> _Items:
        """Open subtrees until each one stands between leaves of higher layers, or the ends."""
        if len(items) == 1:
            return items
        settled: _Items = []
        waiting = items[::-1]
        while waiting:
            item = waiting.pop()
            last = settled[-1] if settled else None
            if isinstance(last, _Subtree) and _layer(last) >= _layer(item):
                # `item` comes back after what is in `last`, and is judged anew.
                settled.pop()
                waiting.append(item)
                waiting.extend(reversed(self._contents(last)))
            elif isinstance(item, _Subtree) and last is not None and _layer(item) >= _layer(last):
                waiting.extend(reversed(self._contents(item)))
            else:
                settled.append(item)
        return settled

    def _prune(self, subtree: _Subtree) -> bytes:
        """Find the root when one subtree is all there is: nodes without entries go (IV-04)."""
        while subtree.cid in self._blocks:
            contents = self._contents(subtree)
            if len(contents) != 1 or not isinstance(contents[0], _Subtree):
                break
            subtree = contents[0]
        return subtree.cid

    def _contents(self, subtree: _Subtree) -> _Items:
        node, layer = self._open(subtree)
        return _lay_out(subtree, node, layer, {}, {})

    def _open(self, subtree: _Subtree) -> tuple[Node, int]:
        block = self._blocks.get(subtree.cid)
        if block is None:
            raise MstError("missing_node", rule="IV-03")
        node = read_node(block)
        layer = check_place(node, layer=subtree.layer, low=subtree.low, high=subtree.high)
        return node, layer


def _lay_out(
    subtree: _Subtree,
    node: Node,
    layer: int,
    hits: Mapping[int, Change],
    gaps: Mapping[int, _Items],
) -> _Items:
    """List the contents of an opened node: hits are changes of its keys, gaps of its children."""
    check_layers(node.keys[1:], layer)
    items: _Items = []
    for index in range(len(node.children)):
        if index in gaps:
            items += gaps[index]
        elif (child := _child(node, index, subtree, layer)) is not None:
            items.append(child)
        if index == len(node.keys):
            break
        leaf = _Leaf(layer, node.keys[index], node.values[index])
        if index in hits:
            items += _undo_present(hits[index], leaf)
        else:
            items.append(leaf)
    return items


def _child(node: Node, index: int, parent: _Subtree, layer: int) -> _Subtree | None:
    cid = node.children[index]
    if cid is None:
        return None
    low = node.keys[index - 1] if index else parent.low
    high = node.keys[index] if index < len(node.keys) else parent.high
    return _Subtree(layer - 1, cid, low, high)


def _undo_present(change: Change, leaf: _Leaf) -> list[_Leaf]:
    check_present(change, leaf.value)
    return [] if change.before is None else [leaf._replace(value=change.before)]


def _undo_absent(change: Change) -> list[_Leaf]:
    check_absent(change)
    if change.before is None:
        return []
    return [_Leaf(restored_layer(change.key), change.key, change.before)]


def _are_below(layer: int, gaps: Mapping[int, _Items]) -> bool:
    for items in gaps.values():
        for item in items:
            if _layer(item) >= layer:
                return False
    return True


def _layer(item: _Leaf | _Subtree) -> int:
    return item.layer or 0
