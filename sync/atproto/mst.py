"""The Merkle search tree of a repo: its layers, building it and walking it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256

from sync.atproto.cid import cid_for
from sync.atproto.node import MstError, Node, read_node, write_node

MAX_LAYER = 64

# Half the number of leading zero bits of a byte, rounded down (MS-02).
_LAYER_OF_BYTE = bytes((8 - byte.bit_length()) // 2 for byte in range(256))

EMPTY_ROOT = cid_for(write_node([], [], [None]))

GetBlock = Callable[[bytes], bytes | None]


def key_layer(key: bytes) -> int:
    """Say in which layer of the tree a key lives."""
    digest = sha256(key).digest()
    layer = _LAYER_OF_BYTE[digest[0]]
    if layer < 4:
        return layer
    return (256 - int.from_bytes(digest, "big").bit_length()) // 2


class TreeBuilder:
    """Assemble the one tree that holds the given leaves and whole subtrees, fed in key order.

    A subtree may only stand beside leaves of higher layers: anything else would have to be merged
    with it. Nodes are written to `keep` if one is given.
    """

    __slots__ = ("_children", "_keep", "_keys", "_subtrees", "_values")

    def __init__(self, *, keep: dict[bytes, bytes] | None = None) -> None:
        self._keep = keep
        self._keys: list[list[bytes]] = []
        self._values: list[list[bytes]] = []
        self._children: list[list[bytes | None]] = []
        self._subtrees: list[bytes | None] = []

    def add_leaf(self, key: bytes, value: bytes, *, layer: int) -> None:
        """Append the next leaf."""
        while len(self._keys) <= layer:
            self._add_layer()
        self._children[layer].append(self._close_below(layer) if layer else None)
        self._keys[layer].append(key)
        self._values[layer].append(value)

    def add_subtree(self, cid: bytes, *, layer: int) -> None:
        """Append a subtree whose top node lies in `layer`, known by its CID only."""
        while len(self._keys) <= layer:
            self._add_layer()
        self._subtrees[layer] = cid

    def finish(self) -> bytes:
        """Close the tree and return its root: a layer is only made for what comes to lie in it."""
        root = self._close_below(len(self._keys))
        if root is not None:
            return root
        return self._store([], [], [None])

    def finish_below(self, layer: int) -> bytes | None:
        """Close the tree as a child for a node in `layer`, with bare nodes up to there."""
        while len(self._keys) < layer:
            self._add_layer()
        return self._close_below(layer)

    def _add_layer(self) -> None:
        self._keys.append([])
        self._values.append([])
        self._children.append([])
        self._subtrees.append(None)

    def _close_below(self, layer: int) -> bytes | None:
        """Finish every open node below a layer; return the topmost, the child for that layer."""
        child: bytes | None = None
        for below in range(layer):
            subtree = self._subtrees[below]
            if subtree is not None:
                child = subtree
                self._subtrees[below] = None
            elif self._keys[below]:
                self._children[below].append(child)
                child = self._store(self._keys[below], self._values[below], self._children[below])
                self._keys[below], self._values[below], self._children[below] = [], [], []
            elif child is not None:
                child = self._store([], [], [child])
        return child

    def _store(self, keys: list[bytes], values: list[bytes], children: list[bytes | None]) -> bytes:
        block = write_node(keys, values, children)
        cid = cid_for(block)
        if self._keep is not None:
            self._keep[cid] = block
        return cid


def build(leaves: Mapping[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """Build the whole tree of a key → CID mapping: its root and all node blocks (MS-19)."""
    blocks: dict[bytes, bytes] = {}
    builder = TreeBuilder(keep=blocks)
    for key in sorted(leaves):
        builder.add_leaf(key, leaves[key], layer=key_layer(key))
    return builder.finish(), blocks


def check_node(node: Node, *, layer: int | None, low: bytes | None, high: bytes | None) -> int:
    """Check a node's place in the tree and its keys' layers, and return its layer.

    A root comes without a layer. `low` and `high` are the keys beside the link that led here,
    None where there is none.
    """
    layer = check_place(node, layer=layer, low=low, high=high)
    check_layers(node.keys[1:], layer)
    return layer


def check_layers(keys: Iterable[bytes], layer: int) -> None:
    """Check that keys live in the layer where they were found."""
    for key in keys:
        # The first byte of the hash tells all layers but the highest.
        if _LAYER_OF_BYTE[sha256(key).digest()[0]] != layer and key_layer(key) != layer:
            raise MstError("wrong_layer", "a key lies outside its layer", rule="MS-03")


def check_place(node: Node, *, layer: int | None, low: bytes | None, high: bytes | None) -> int:
    """Check what check_node() checks but the layers of all keys after the first.

    A layer costs a hash.
    """
    keys = node.keys
    if not keys:
        return _check_bare_node(node, layer)
    if (low is not None and keys[0] <= low) or (high is not None and keys[-1] >= high):
        raise MstError("key_order", "a key lies outside its parent's range", rule="MS-05")
    own = key_layer(keys[0])
    if layer is not None and own != layer:
        raise MstError("wrong_layer", "a key lies outside its layer", rule="MS-03")
    if own > MAX_LAYER:
        raise MstError("tree_too_deep", f"layer {own}", rule="MS-17")
    if own == 0 and any(node.children):
        raise MstError("tree_too_deep", "a node below layer 0", rule="MS-14")
    return own


def _check_bare_node(node: Node, layer: int | None) -> int:
    if layer is None:
        if node.children[0] is not None:
            raise MstError("bare_root", "the root has no entry, only a child", rule="MS-12")
        return 0
    if node.children[0] is None:
        raise MstError("empty_node", "an empty node inside the tree", rule="MS-11")
    if layer == 0:
        raise MstError("tree_too_deep", "a node below layer 0", rule="MS-14")
    return layer


def load_node(cid: bytes, get_block: GetBlock) -> Node:
    """Read the node a link points to; MstError `missing_node` when it is not there."""
    block = get_block(cid)
    if block is None:
        raise MstError("missing_node", rule="CA-10")
    return read_node(block)


def walk(root: bytes, get_block: GetBlock) -> Iterator[tuple[bytes, bytes]]:
    """Yield every (key, CID) of a whole tree in key order, all rules of section 11 checked.

    Bounded whatever the blocks say: a node that is reached twice breaks the key order, and
    layers only go down.
    """
    stack = _descend(root, get_block, layer=None, low=None, high=None)
    while stack:
        node, index, layer, high = stack.pop()
        keys, values, children = node.keys, node.values, node.children
        count = len(keys)
        while index < count:
            key = keys[index]
            yield key, values[index]
            index += 1
            child = children[index]
            if child is not None:
                stack.append((node, index, layer, high))
                stop = keys[index] if index < count else high
                stack += _descend(child, get_block, layer=layer - 1, low=key, high=stop)
                break


def _descend(
    cid: bytes | None,
    get_block: GetBlock,
    *,
    layer: int | None,
    low: bytes | None,
    high: bytes | None,
) -> list[tuple[Node, int, int, bytes | None]]:
    """Load the nodes along the left edge of a subtree, each with (next key, layer, range end)."""
    path: list[tuple[Node, int, int, bytes | None]] = []
    while cid is not None:
        node = load_node(cid, get_block)
        layer = check_node(node, layer=layer, low=low, high=high)
        path.append((node, 0, layer, high))
        high = node.keys[0] if node.keys else high
        cid = node.children[0]
        layer -= 1
    return path
