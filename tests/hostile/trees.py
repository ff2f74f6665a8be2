"""Trees that break one rule each, every node correctly hashed.

They are made from the honest tree of the same records: opened into nodes that can be changed at
will, and encoded again as they are.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sync.atproto import cbor
from sync.atproto.cid import cid_for
from sync.atproto.mst import key_layer
from sync.atproto.node import read_node
from sync.simnet.tree import Tree
from tests.unit.repos import keys_by_layer, record

Blocks = dict[bytes, bytes]
RAW_CID = cid_for(b"raw", codec=0x55)
RECORD = record("in a tree that lies")
RECORD_CID = cid_for(RECORD)


@dataclass
class RawEntry:
    """One entry and the child after it; `forced` are fields as they are to be written."""

    key: bytes
    value: bytes
    child: "RawNode | bytes | None" = None
    forced: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    def fields(self, previous: bytes, blocks: Blocks) -> dict[str, Any]:
        """Return the entry as its node holds it."""
        shared = shared_prefix(previous, self.key)
        honest = {
            "p": shared,
            "k": self.key[shared:],
            "v": cbor.Link(self.value),
            "t": _link(self.child, blocks),
        }
        fields = {**honest, **self.forced}
        return {name: value for name, value in fields.items() if name not in self.left_out}


@dataclass
class RawNode:
    """One node that need not keep any rule."""

    left: "RawNode | bytes | None" = None
    entries: list[RawEntry] = field(default_factory=list)
    forced: dict[str, Any] = field(default_factory=dict)

    def encode(self, blocks: Blocks) -> bytes:
        """Write this node and those below into `blocks`; returns its CID."""
        previous, entries = b"", []
        for entry in self.entries:
            entries.append(entry.fields(previous, blocks))
            previous = entry.key
        block = cbor.encode({"l": _link(self.left, blocks), "e": entries, **self.forced})
        cid = cid_for(block)
        blocks[cid] = block
        return cid

    def encode_alone(self) -> bytes:
        """Return the node's bytes."""
        blocks: Blocks = {}
        return blocks[self.encode(blocks)]

    def index(self, key: bytes) -> int:
        """Return where a key is, or would be."""
        return bisect_left([entry.key for entry in self.entries], key)

    def child(self, index: int) -> "RawNode":
        """Return the child before an entry."""
        found = self.entries[index - 1].child if index else self.left
        assert isinstance(found, RawNode)
        return found

    def set_child(self, index: int, child: "RawNode | bytes | None") -> None:
        """Replace the child before an entry."""
        if index:
            self.entries[index - 1].child = child
        else:
            self.left = child


@dataclass(frozen=True)
class Grown:
    """An honest tree in which `key` is new, opened from the root down to the key's node."""

    root: RawNode
    path: tuple[RawNode, ...]
    key: bytes

    @property
    def node(self) -> RawNode:
        """Return the node with the new key."""
        return self.path[-1]

    @property
    def at(self) -> int:
        """Return the new key's place there."""
        return self.node.index(self.key)

    @property
    def entry(self) -> RawEntry:
        """Return the new key's entry."""
        return self.node.entries[self.at]


@dataclass(frozen=True)
class TreeLie:
    """One broken rule: the layer of the new key beside which it shows, and the lie itself."""

    name: str
    reason: str
    break_tree: Callable[[Grown], RawNode | None]
    layer: int = 0

    def tell(self, tree: Tree) -> tuple[bytes, Blocks, bytes]:
        """Return the root and the nodes of a tree that lies, and the key that is new in it."""
        grown = grow(tree, self.layer)
        blocks: Blocks = {}
        root = (self.break_tree(grown) or grown.root).encode(blocks)
        return root, blocks, grown.key


def first_leaves() -> Mapping[bytes, bytes]:
    """Return records enough for a tree of three layers with several keys in a node."""
    keys = [*keys_by_layer(2, 1), *keys_by_layer(1, 3), *keys_by_layer(0, 12)]
    return {key: record(key.decode()) for key in keys}


def open_tree(cid: bytes, blocks: Mapping[bytes, bytes]) -> RawNode:
    """Open a whole tree for changes."""

    def opened(link: bytes | None) -> RawNode | None:
        return None if link is None else open_tree(link, blocks)

    node = read_node(blocks[cid])
    children = [opened(link) for link in node.children]
    entries = zip(node.keys, node.values, children[1:], strict=True)
    return RawNode(children[0], [RawEntry(*each) for each in entries])


def grow(tree: Tree, layer: int) -> Grown:
    """Add a key of a layer where its node has a key before it, one after it, and parents."""
    for key in keys_by_layer(layer, 200):
        if tree.get(key) is not None:
            continue
        grown = tree.put(key, RECORD_CID)
        root = open_tree(grown.cid, dict(grown.blocks()))
        path = [root]
        while (at := path[-1].index(key)) == len(path[-1].entries) or (
            path[-1].entries[at].key != key
        ):
            path.append(path[-1].child(at))
        found = Grown(root, tuple(path), key)
        has_bounds = layer or path[-2].index(key) < len(path[-2].entries)
        if 0 < found.at < len(found.node.entries) - 1 and len(path) >= 3 - layer and has_bounds:
            return found
    raise AssertionError(f"no key of layer {layer} has the neighbours it needs")


def next_key(key: bytes, *, layer: int) -> bytes:
    """Return a key of a layer that comes soon after another one."""
    found = (key + b"-%d" % number for number in range(100_000))
    return next(each for each in found if key_layer(each) == layer)


def shared_prefix(first: bytes, second: bytes) -> int:
    """Return how many bytes two keys begin with in common."""
    pairs = zip(first, second, strict=False)
    return next(
        (at for at, (one, two) in enumerate(pairs) if one != two), min(len(first), len(second))
    )


def _link(child: RawNode | bytes | None, blocks: Blocks) -> cbor.Link | None:
    if child is None:
        return None
    return cbor.Link(child if isinstance(child, bytes) else child.encode(blocks))


# The lies ------------------------------------------------------------------------------------


def _force(**fields: Any) -> Callable[[Grown], None]:
    def tell(grown: Grown) -> None:
        grown.entry.forced.update(fields)

    return tell


def _wrong_layer(grown: Grown) -> None:
    """Put a key of layer 1 between those of layer 0."""
    key = next_key(grown.key, layer=1)
    assert key < grown.node.entries[grown.at + 1].key
    grown.node.entries.insert(grown.at + 1, RawEntry(key, RECORD_CID))


def _swap(grown: Grown) -> None:
    entries, at = grown.node.entries, grown.at
    entries[at], entries[at + 1] = entries[at + 1], entries[at]


def _repeat(grown: Grown) -> None:
    grown.node.entries.insert(grown.at, grown.entry)


def _out_of_range(grown: Grown) -> None:
    """Have the last key lie beyond the parent's next one."""
    parent = grown.path[-2]
    bound = parent.entries[parent.index(grown.key)].key
    grown.node.entries.append(RawEntry(next_key(bound, layer=0), RECORD_CID))


def _short_prefix(grown: Grown) -> None:
    previous = grown.node.entries[grown.at - 1].key
    shared = shared_prefix(previous, grown.key) - 1
    grown.entry.forced.update(p=shared, k=grown.key[shared:])


def _long_prefix(grown: Grown) -> None:
    grown.entry.forced["p"] = len(grown.node.entries[grown.at - 1].key) + 1


def _first_prefix(grown: Grown) -> None:
    grown.node.entries[0].forced.update(p=3, k=grown.node.entries[0].key[3:])


def _empty_node(grown: Grown) -> None:
    """Put one on both sides of the key, which are joined when it is taken out again."""
    grown.node.set_child(grown.at, RawNode())
    grown.entry.child = RawNode()


def _bare_root(grown: Grown) -> RawNode:
    return RawNode(grown.root)


def _below_the_bottom(grown: Grown) -> None:
    below = RawNode(None, [RawEntry(next_key(grown.key, layer=0), RECORD_CID)])
    grown.entry.child = below


def _skipped_layer(grown: Grown) -> None:
    root = grown.root
    root.set_child(root.index(grown.key), grown.node)


def _extra_field(grown: Grown) -> None:
    grown.node.forced["x"] = 1


def _no_t(grown: Grown) -> None:
    grown.entry.left_out = frozenset("t")


def _raw_link(grown: Grown) -> None:
    grown.node.left = RAW_CID


def _raw_child(grown: Grown) -> None:
    grown.entry.child = RAW_CID


TREE_LIES = [
    TreeLie("a key at the wrong layer", "wrong_layer", _wrong_layer),
    TreeLie("keys out of order", "key_order", _swap),
    TreeLie("a key twice", "key_order", _repeat),
    TreeLie("a key outside its parent's range", "key_order", _out_of_range),
    TreeLie("a prefix that is not the longest", "bad_prefix", _short_prefix),
    TreeLie("a prefix longer than the key before", "bad_prefix", _long_prefix),
    TreeLie("a prefix below zero", "bad_node", _force(p=-1)),
    TreeLie("a first key with a prefix", "bad_prefix", _first_prefix),
    TreeLie("an empty node inside", "empty_node", _empty_node, layer=1),
    TreeLie("a root that only points down", "bare_root", _bare_root),
    TreeLie("a child below layer 0", "tree_too_deep", _below_the_bottom),
    TreeLie("a skipped layer", "wrong_layer", _skipped_layer),
    TreeLie("an extra field in a node", "bad_node", _extra_field),
    TreeLie("an extra field in an entry", "bad_node", _force(x=1)),
    TreeLie("an entry without t", "bad_node", _no_t),
    TreeLie("an l that links raw bytes", "bad_node_link", _raw_link),
    TreeLie("a t that links raw bytes", "bad_node_link", _raw_child),
]
