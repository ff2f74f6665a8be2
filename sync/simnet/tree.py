"""A repo's tree in memory, persistent: a change makes new nodes on one path and shares the rest.

So a commit costs what it touches, however large the repo, and an old tree stays readable: that
is how a stale export can be served. Blocks and CIDs are made once a node, when asked for.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from sync.atproto.cid import cid_for
from sync.atproto.mst import key_layer
from sync.atproto.node import write_node


class Node:
    """One immutable node: `children[i]` lies before `keys[i]`, the last one after them all."""

    __slots__ = ("_block", "_cid", "children", "keys", "layer", "values")

    def __init__(
        self,
        layer: int,
        keys: tuple[bytes, ...],
        values: tuple[bytes, ...],
        children: tuple["Node | None", ...],
    ) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.children = children
        self._block: bytes | None = None
        self._cid: bytes | None = None

    @property
    def block(self) -> bytes:
        """Return the node's bytes."""
        if self._block is None:
            links = [None if child is None else child.cid for child in self.children]
            self._block = write_node(list(self.keys), list(self.values), links)
        return self._block

    @property
    def cid(self) -> bytes:
        """Return the CID of the node's bytes."""
        if self._cid is None:
            self._cid = cid_for(self.block)
        return self._cid


_EMPTY = Node(0, (), (), (None,))


class Tree:
    """A map from keys to CIDs as the one tree that the protocol prescribes for it."""

    __slots__ = ("_root",)

    def __init__(self, root: Node | None = None) -> None:
        self._root = root

    @classmethod
    def build(cls, leaves: Mapping[bytes, bytes]) -> "Tree":
        """Build the tree of many leaves at once."""
        entries = [(key, leaves[key], key_layer(key)) for key in sorted(leaves)]
        top = max((layer for _, _, layer in entries), default=0)
        return cls(_build(entries, top))

    @property
    def cid(self) -> bytes:
        """Return the CID of the root."""
        return self._top.cid

    @property
    def _top(self) -> Node:
        return _EMPTY if self._root is None else self._root

    def get(self, key: bytes) -> bytes | None:
        """Return the CID under a key."""
        node = self._root
        while node is not None:
            at = bisect_left(node.keys, key)
            if at < len(node.keys) and node.keys[at] == key:
                return node.values[at]
            node = node.children[at]
        return None

    def put(self, key: bytes, value: bytes) -> "Tree":
        """Return the tree with a leaf added or replaced."""
        layer = key_layer(key)
        root = self._root
        if root is None:
            return Tree(Node(layer, (key,), (value,), (None, None)))
        if layer <= root.layer:
            return Tree(_put(root, key, value, layer))
        left, right = _split(root, key)
        return Tree(
            Node(layer, (key,), (value,), (_lift(left, layer - 1), _lift(right, layer - 1)))
        )

    def remove(self, key: bytes) -> "Tree":
        """Return the tree without a leaf; raises KeyError when it is not there."""
        if self._root is None:
            raise KeyError(key)
        root = _remove(self._root, key)
        while root is not None and not root.keys:
            root = root.children[0]
        return Tree(root)

    def leaves(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the leaves in key order."""
        return _leaves(self._root)

    def blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every node as (CID, block)."""
        pending = [self._top]
        while pending:
            node = pending.pop()
            yield node.cid, node.block
            pending.extend(child for child in node.children if child is not None)

    def path_blocks(self, key: bytes) -> dict[bytes, bytes]:
        """Return the nodes that prove a key present or absent."""
        return {node.cid: node.block for node in self._path(key)}

    def covering_blocks(self, key: bytes) -> dict[bytes, bytes]:
        """Return the nodes that prove a key and both its neighbours.

        With them an operation on the key can be undone whatever the order of the others (IV-02).
        """
        path = self._path(key)
        last = path[-1]
        at = bisect_left(last.keys, key)
        if at < len(last.keys) and last.keys[at] == key:
            path += _edge(last.children[at], index=-1)
            path += _edge(last.children[at + 1], index=0)
        return {node.cid: node.block for node in path}

    def _path(self, key: bytes) -> list[Node]:
        path = [self._top]
        while True:
            node = path[-1]
            at = bisect_left(node.keys, key)
            child = node.children[at]
            if child is None or (at < len(node.keys) and node.keys[at] == key):
                return path
            path.append(child)


def _build(entries: Sequence[tuple[bytes, bytes, int]], layer: int) -> Node | None:
    """Build the node of a layer over sorted entries that all belong at or below it."""
    if not entries:
        return None
    own = [at for at, entry in enumerate(entries) if entry[2] == layer]
    bounds = [-1, *own, len(entries)]
    children = [
        _build(entries[start + 1 : end], layer - 1) for start, end in itertools.pairwise(bounds)
    ]
    keys = tuple(entries[at][0] for at in own)
    return Node(layer, keys, tuple(entries[at][1] for at in own), tuple(children))


def _put(node: Node, key: bytes, value: bytes, layer: int) -> Node:
    at = bisect_left(node.keys, key)
    if at < len(node.keys) and node.keys[at] == key:
        values = (*node.values[:at], value, *node.values[at + 1 :])
        return Node(node.layer, node.keys, values, node.children)
    child = node.children[at]
    if layer < node.layer:
        if child is None:
            leaf = Node(layer, (key,), (value,), (None, None))
            return _with_child(node, at, _lift(leaf, node.layer - 1))
        return _with_child(node, at, _put(child, key, value, layer))
    return Node(
        layer,
        (*node.keys[:at], key, *node.keys[at:]),
        (*node.values[:at], value, *node.values[at:]),
        (*node.children[:at], *_split(child, key), *node.children[at + 1 :]),
    )


def _remove(node: Node, key: bytes) -> Node | None:
    at = bisect_left(node.keys, key)
    if at < len(node.keys) and node.keys[at] == key:
        joined = _join(node.children[at], node.children[at + 1])
        return _node_or_none(
            node.layer,
            (*node.keys[:at], *node.keys[at + 1 :]),
            (*node.values[:at], *node.values[at + 1 :]),
            (*node.children[:at], joined, *node.children[at + 2 :]),
        )
    child = node.children[at]
    if child is None:
        raise KeyError(key)
    rest = _remove(child, key)
    children = (*node.children[:at], rest, *node.children[at + 1 :])
    return _node_or_none(node.layer, node.keys, node.values, children)


def _with_child(node: Node, at: int, child: Node | None) -> Node:
    children = (*node.children[:at], child, *node.children[at + 1 :])
    return Node(node.layer, node.keys, node.values, children)


def _split(node: Node | None, key: bytes) -> tuple[Node | None, Node | None]:
    """Part a subtree into what lies before a key and what lies after it."""
    if node is None:
        return None, None
    at = bisect_left(node.keys, key)
    left, right = _split(node.children[at], key)
    return (
        _node_or_none(node.layer, node.keys[:at], node.values[:at], (*node.children[:at], left)),
        _node_or_none(
            node.layer, node.keys[at:], node.values[at:], (right, *node.children[at + 1 :])
        ),
    )


def _join(left: Node | None, right: Node | None) -> Node | None:
    """Make one subtree of two neighbours of the same layer."""
    if left is None or right is None:
        return left or right
    middle = _join(left.children[-1], right.children[0])
    return Node(
        left.layer,
        left.keys + right.keys,
        left.values + right.values,
        (*left.children[:-1], middle, *right.children[1:]),
    )


def _lift(node: Node | None, layer: int) -> Node | None:
    """Wrap a subtree in entry-less nodes up to a layer: layers are never skipped (MS-13)."""
    while node is not None and node.layer < layer:
        node = Node(node.layer + 1, (), (), (node,))
    return node


def _node_or_none(
    layer: int,
    keys: tuple[bytes, ...],
    values: tuple[bytes, ...],
    children: tuple[Node | None, ...],
) -> Node | None:
    if not keys and children[0] is None:
        return None
    return Node(layer, keys, values, children)


def _edge(node: Node | None, *, index: int) -> list[Node]:
    """Return the nodes down one side of a subtree: index 0 is the left side, -1 the right."""
    edge: list[Node] = []
    while node is not None:
        edge.append(node)
        node = node.children[index]
    return edge


def _leaves(node: Node | None) -> Iterator[tuple[bytes, bytes]]:
    if node is None:
        return
    yield from _leaves(node.children[0])
    for key, value, child in zip(node.keys, node.values, node.children[1:], strict=True):
        yield key, value
        yield from _leaves(child)
