"""Read and write the nodes of the Merkle search tree of a repo (rules MS-01, MS-06..10, MS-15..22).

A node has exactly one valid encoding. The usual node, of printable keys and of links as the
protocol blesses them, is taken apart by one pattern: put together again, the parts must be the
same bytes. Whatever is large or odd is read and written by hand, byte by byte, where no length
is believed before the bytes are there.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from sync.atproto.cid import CID_LENGTH, DAG_CBOR_PREFIX
from sync.errors import ProtocolError

MAX_KEY_BYTES = 1_024
MAX_NODE_ENTRIES = 8_192

# All but the largest nodes of honest repos are below; the pattern takes time for larger ones too.
_USUAL_NODE_BYTES = 4_096

_START = b"\xa2\x61e"
_LINK = b"\xd8\x2a\x58\x25\x00"
_NODE_LINK = _LINK + DAG_CBOR_PREFIX
_NULL = 0xF6
_LEFT_NULL = b"\x61l\xf6"
_LEFT_LINK = b"\x61l" + _NODE_LINK
_LEFT_LINK_BYTES = 43
# `v` and its link, at the end of a usual entry.
_USUAL_VALUE_BYTES = 43

# A usual entry: (all of it, head of k, k, p, CID of t, CID of v). The key is followed by a
# control character, so there is one way only to read it; its head is compared with its length
# afterwards.
_USUAL_ENTRY = re.compile(
    rb"(\xa4\x61k([\x41-\x57]|\x58[\x18-\xff])([!-~]{1,255})"
    rb"\x61p([\x00-\x17]|\x18[\x18-\xff])"
    rb"\x61t(?:\xf6|\xd8\x2a\x58\x25\x00(\x01\x71\x12\x20.{32}))"
    rb"\x61v\xd8\x2a\x58\x25\x00(\x01[\x55\x71]\x12\x20.{32}))",
    re.DOTALL,
)


class MstError(ProtocolError):
    """A tree that breaks a rule, or lacks a node that is needed."""


class Node(NamedTuple):
    """One node, its keys in full: `children[i]` lies before `keys[i]`, the last one after them all.

    `entries` are the encoded entries of a usual node, from which a changed one is put together.
    A tuple and not a dataclass: thousands are made per second.
    """

    keys: list[bytes]
    values: list[bytes]
    children: list[bytes | None]
    entries: list[bytes] | None


def read_node(block: bytes) -> Node:
    """Read a node that keeps every rule a node alone can break."""
    if len(block) <= _USUAL_NODE_BYTES:
        node = _read_usual(block)
        if node is not None:
            return node
    try:
        return _read_carefully(block)
    except IndexError:
        raise MstError("bad_node", "cut short", rule="MS-01") from None


def _read_usual(block: bytes) -> Node | None:
    """Read a node of usual entries, or return None where a closer look is needed."""
    entries: list[bytes] = []
    keys: list[bytes] = []
    values: list[bytes] = []
    children: list[bytes | None] = [None]
    key, size = b"", 0
    for entry, head, suffix, prefix, link, value in _USUAL_ENTRY.findall(block):
        shared, added = prefix[-1], len(suffix)
        # Greater in the first byte that is not shared: the order and the longest prefix.
        if suffix[0] <= key[shared] if shared < size else shared != size:
            return None
        if head != _BYTES_HEADS[added]:
            return None
        key, size = key[:shared] + suffix, shared + added
        entries.append(entry)
        keys.append(key)
        values.append(value)
        children.append(link or None)
    start = b"".join((_STARTS[len(keys)], *entries))
    if not block.startswith(start):
        return None
    left = block[len(start) :]
    if left != _LEFT_NULL:
        if len(left) != _LEFT_LINK_BYTES or not left.startswith(_LEFT_LINK):
            return None
        children[0] = left[7:]
    return Node(keys, values, children, entries)


def _read_carefully(block: bytes) -> Node:
    if block[:3] != _START:
        raise MstError("bad_node", "not a map of e and l", rule="MS-01")
    count, at = _read_head(block, 3, 0x80)
    if count > MAX_NODE_ENTRIES:
        raise MstError("node_too_big", f"{count} entries", rule="MS-16")
    node, at = _read_entries(block, at, count)
    if block[at : at + 2] != b"\x61l":
        raise MstError("bad_node", "no l", rule="MS-01")
    node.children[0], at = _read_child(block, at + 2)
    if at != len(block):
        raise MstError("bad_node", "bytes left over", rule="CB-14")
    return node


def _read_entries(block: bytes, at: int, count: int) -> tuple[Node, int]:
    keys: list[bytes] = []
    values: list[bytes] = []
    children: list[bytes | None] = [None]
    key = b""
    for _ in range(count):
        if block[at : at + 3] != b"\xa4\x61k":
            raise MstError("bad_node", "not an entry of k, p, t and v", rule="MS-01")
        size, at = _read_head(block, at + 3, 0x40)
        suffix = block[at : at + size]
        at += size
        if block[at : at + 2] != b"\x61p":
            raise MstError("bad_node", "entry without p", rule="MS-01")
        shared, at = _read_head(block, at + 2, 0)
        key = _join_key(key, shared, suffix)
        keys.append(key)
        if block[at : at + 2] != b"\x61t":
            raise MstError("bad_node", "entry without t", rule="MS-01")
        child, at = _read_child(block, at + 2)
        children.append(child)
        value, at = _read_value(block, at)
        values.append(value)
    return Node(keys, values, children, None), at


def _join_key(previous: bytes, shared: int, suffix: bytes) -> bytes:
    """Complete a key; one comparison proves both the order and the longest prefix."""
    if shared > len(previous):
        raise MstError("bad_prefix", f"p is {shared} of {len(previous)}", rule="MS-07")
    if not suffix:
        raise MstError("key_order", "a key repeats or is empty", rule="MS-04")
    if shared < len(previous) and suffix[0] <= previous[shared]:
        if suffix[0] == previous[shared]:
            raise MstError("bad_prefix", "p is not the longest", rule="MS-08")
        raise MstError("key_order", "keys do not ascend", rule="MS-04")
    key = previous[:shared] + suffix
    if len(key) > MAX_KEY_BYTES:
        raise MstError("key_too_long", f"{len(key)} bytes", rule="MS-10")
    return key


def _read_head(block: bytes, at: int, major: int) -> tuple[int, int]:
    """Read a CBOR head in its shortest form: (argument, position after it)."""
    low = block[at] - major
    if 0 <= low < 24:
        return low, at + 1
    if not 24 <= low <= 27:
        raise MstError("bad_node", "unexpected CBOR type", rule="MS-01")
    size = 1 << (low - 24)
    if at + 1 + size > len(block):
        raise MstError("bad_node", "cut short", rule="MS-01")
    value = int.from_bytes(block[at + 1 : at + 1 + size], "big")
    if value < (24, 0x100, 0x10000, 0x100000000)[low - 24]:
        raise MstError("bad_node", "length not in shortest form", rule="CB-01")
    return value, at + 1 + size


def _read_child(block: bytes, at: int) -> tuple[bytes | None, int]:
    if block[at] == _NULL:
        return None, at + 1
    if block[at : at + 9] != _NODE_LINK or len(block) < at + 41:
        raise MstError("bad_node_link", "neither null nor a dag-cbor sha2-256 link", rule="MS-15")
    return block[at + 5 : at + 41], at + 41


def _read_value(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a record link of any CID form, its bytes kept as they are (MS-18)."""
    if block[at : at + 4] != b"\x61v\xd8\x2a":
        raise MstError("bad_node", "entry without a link v", rule="MS-01")
    length, at = _read_head(block, at + 4, 0x40)
    if not 1 < length <= 101 or block[at] != 0 or at + length > len(block):
        raise MstError("bad_record_link", f"{length} bytes", rule="CB-08")
    return block[at + 1 : at + length], at + length


def replace_child(block: bytes, node: Node, index: int, link: bytes | None) -> bytes:
    """Encode the node of a block with one child link replaced and all else as it is."""
    if node.entries is None or link is None or node.children[index] is None:
        return replace_children(node, {index: link})
    end = len(block)
    if index:
        before = sum(map(len, node.entries[:index]))
        end = len(_STARTS[len(node.entries)]) + before - _USUAL_VALUE_BYTES
    return block[: end - CID_LENGTH] + link + block[end:]


def replace_children(node: Node, children: Mapping[int, bytes | None]) -> bytes:
    """Encode a node with some child links replaced and all else as it is."""
    if node.entries is None:
        links = [children.get(index, link) for index, link in enumerate(node.children)]
        return write_node(node.keys, node.values, links)
    entries = node.entries.copy()
    left = node.children[0]
    for index, link in children.items():
        if index:
            entry = entries[index - 1]
            link_at = -_USUAL_VALUE_BYTES - len(_write_link(node.children[index]))
            entries[index - 1] = entry[:link_at] + _write_link(link) + entry[-_USUAL_VALUE_BYTES:]
        else:
            left = link
    return _write_parts(entries, left)


def write_node(keys: list[bytes], values: list[bytes], children: list[bytes | None]) -> bytes:
    """Encode a node; the inverse of read_node()."""
    entries = []
    previous = b""
    for index, key in enumerate(keys):
        entries.append(_write_entry(previous, key, values[index], children[index + 1]))
        previous = key
    return _write_parts(entries, children[0])


def write_changed_node(
    node: Node, index: int, keys: list[bytes], values: list[bytes], children: list[bytes | None]
) -> bytes:
    """Encode what a node becomes by a change at `index`: one key more, or less, or another link.

    All but the entries beside it are copied.
    """
    if node.entries is None:
        return write_node(keys, values, children)
    # The next key is written otherwise if another one comes before it.
    added = len(keys) - len(node.keys)
    first, last = max(index - 1, 0), min(index + (2 if added > 0 else 1), len(keys))
    entries = node.entries[:first]
    previous = keys[first - 1] if first else b""
    for at in range(first, last):
        entries.append(_write_entry(previous, keys[at], values[at], children[at + 1]))
        previous = keys[at]
    entries += node.entries[last - added :]
    return _write_parts(entries, children[0])


def _write_parts(entries: list[bytes], left: bytes | None) -> bytes:
    count = len(entries)
    start = _STARTS[count] if count < len(_STARTS) else _START + _write_head(0x80, count)
    return b"".join((start, *entries, b"\x61l", _write_link(left)))


def _write_entry(previous: bytes, key: bytes, value: bytes, child: bytes | None) -> bytes:
    """Encode the entry of a key that comes after another one in its node."""
    shared = _common_prefix(previous, key)
    return b"".join(
        (
            b"\xa4\x61k",
            _BYTES_HEADS[len(key) - shared],
            key[shared:],
            b"\x61p",
            _INTEGER_HEADS[shared],
            b"\x61t",
            _write_link(child),
            b"\x61v\xd8\x2a",
            _BYTES_HEADS[len(value) + 1],
            b"\x00",
            value,
        )
    )


def _write_link(child: bytes | None) -> bytes:
    return b"\xf6" if child is None else _LINK + child


def _write_head(major: int, value: int) -> bytes:
    """Write a CBOR head; two bytes of length suffice for the limits of a node."""
    if value < 24:
        return bytes((major + value,))
    low, size = (24, 1) if value < 0x100 else (25, 2)
    return bytes((major + low,)) + value.to_bytes(size, "big")


# Of every length that a key, a part of it, or a link may have.
_BYTES_HEADS = [_write_head(0x40, value) for value in range(MAX_KEY_BYTES + 1)]
_INTEGER_HEADS = [_write_head(0, value) for value in range(MAX_KEY_BYTES + 1)]
# Of every number of entries that a usual node may have.
_STARTS = [_START + _write_head(0x80, count) for count in range(_USUAL_NODE_BYTES // 43)]


def _common_prefix(first: bytes, second: bytes) -> int:
    size = min(len(first), len(second))
    # Comparing as one big number costs less than a loop over the bytes.
    differing = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (differing.bit_length() + 7) // 8
