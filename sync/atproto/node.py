"""Read and write the nodes of the Merkle search tree of a repo (rules MS-01, MS-06..10, MS-15..22).

A node has exactly one valid encoding, so it is read by hand instead of by a general CBOR codec:
what is accepted is canonical by construction, nothing nests, and no declared length is believed
before the bytes are there.
"""

import re
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from sync.atproto.cid import CID_LENGTH, DAG_CBOR_PREFIX
from sync.errors import ProtocolError

MAX_KEY_BYTES = 1_024
MAX_NODE_ENTRIES = 8_192

_LINK = b"\xd8\x2a\x58\x25\x00"
_NODE_LINK = _LINK + DAG_CBOR_PREFIX
_VALUE_LINK = b"\x61v" + _LINK
_NULL = 0xF6


class MstError(ProtocolError):
    """A tree that breaks a rule, or lacks a node that is needed."""


class Node(NamedTuple):
    """One node, its keys in full: `children[i]` lies before `keys[i]`, the last one after them all.

    `pieces` are what varies of each entry's bytes, `fixed` how many there are besides, so that
    replace_children() finds its way. A tuple and not a dataclass: thousands are made per second.
    """

    keys: list[bytes]
    values: list[bytes]
    children: list[bytes | None]
    pieces: list[tuple[bytes, ...]]
    fixed: int


def _make_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major + value,))
    low, size = (24, 1) if value < 0x100 else (25, 2)
    return bytes((major + low,)) + value.to_bytes(size, "big")


# A node holds at most 8,192 entries and a key at most 1,024 bytes: two bytes of length suffice,
# and the common ones are looked up.
_HEADS = {major: [_make_head(major, value) for value in range(1_100)] for major in (0, 0x40, 0x80)}
_KEY_HEADS = _HEADS[0x40]

# The usual entry, found by one scan: head and rest of k, head of p, t, and a 36-byte v. The scan
# may be fooled by odd keys; lengths are checked afterwards, and what does not add up is read
# byte by byte instead. Both bounds keep a block made to mislead the scan cheap.
_USUAL_ENTRIES = re.compile(
    rb"\xa4\x61k([\x40-\x57]|\x58[\x18-\xff])(.{0,255}?)\x61p([\x00-\x17]|\x18[\x18-\xff])"
    rb"\x61t(\xf6|\xd8\x2a\x58\x25\x00\x01\x71\x12\x20.{32})"
    rb"\x61v\xd8\x2a\x58\x25\x00(.{36})",
    re.DOTALL,
).findall
_USUAL_NODE_BYTES = 16_384
_USUAL_FIXED_BYTES = 14  # of an entry, all that the scan does not catch


def read_node(block: bytes) -> Node:
    """Read a node that keeps every rule a node alone can break."""
    try:
        if block[:3] != b"\xa2\x61e":
            raise MstError("bad_node", "not a map of e and l", rule="MS-01")
        count, at = _read_head(block, 3, 0x80)
        if count > MAX_NODE_ENTRIES:
            raise MstError("node_too_big", f"{count} entries", rule="MS-16")
        node, at = _read_usual_entries(block, at, count) or _read_entries(block, at, count)
        if block[at : at + 2] != b"\x61l":
            raise MstError("bad_node", "no l", rule="MS-01")
        node.children[0], at = _read_child(block, at + 2)
    except IndexError:
        raise MstError("bad_node", "cut short", rule="MS-01") from None
    if at != len(block):
        raise MstError("bad_node", "bytes left over", rule="CB-14")
    return node


def _read_usual_entries(block: bytes, at: int, count: int) -> tuple[Node, int] | None:
    """Read all entries at once, or return None where a closer look is needed."""
    if len(block) > _USUAL_NODE_BYTES:
        return None
    entries = _USUAL_ENTRIES(block, at)
    if len(entries) != count:
        return None
    if not entries:
        return Node([], [], [None], [], 0), at
    heads, suffixes, prefixes, links, values = zip(*entries, strict=True)
    sizes = [len(suffix) for suffix in suffixes]
    if [_KEY_HEADS[size] for size in sizes] != list(heads):
        return None
    keys: list[bytes] = []
    key = b""
    for prefix, suffix in zip(prefixes, suffixes, strict=True):
        shared = prefix[-1]
        if shared < len(key):
            # Greater in the first byte that is not shared: the order and the longest prefix.
            if not suffix or suffix[0] <= key[shared]:
                return None
        elif shared > len(key) or not suffix:
            return None
        key = key[:shared] + suffix
        keys.append(key)
    if max(sizes) > MAX_KEY_BYTES - 0xFF and len(max(keys, key=len)) > MAX_KEY_BYTES:
        return None
    at += count * (_USUAL_FIXED_BYTES + CID_LENGTH) + sum(sizes)
    at += len(b"".join(heads)) + len(b"".join(prefixes)) + len(b"".join(links))
    children = [None, *[link[5:] or None for link in links]]
    return Node(keys, list(values), children, entries, _USUAL_FIXED_BYTES), at


def _read_entries(block: bytes, at: int, count: int) -> tuple[Node, int]:
    keys: list[bytes] = []
    values: list[bytes] = []
    children: list[bytes | None] = [None]
    pieces: list[tuple[bytes, ...]] = []
    key = b""
    for _ in range(count):
        start = at
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
        pieces.append((block[start:at],))
    return Node(keys, values, children, pieces, 0), at


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


def write_node(keys: list[bytes], values: list[bytes], children: list[bytes | None]) -> bytes:
    """Encode a node; the inverse of read_node()."""
    parts = [b"\xa2\x61e", _write_head(0x80, len(keys))]
    previous = b""
    for i, key in enumerate(keys):
        shared = _common_prefix(previous, key)
        child, value, length = children[i + 1], values[i], len(key) - shared
        parts.append(
            b"\xa4\x61k%b%b\x61p%b\x61t%b%b%b"
            % (
                _write_head(0x40, length),
                key[shared:],
                _write_head(0, shared),
                b"\xf6" if child is None else _LINK + child,
                _VALUE_LINK if len(value) == CID_LENGTH else _odd_value_link(value),
                value,
            )
        )
        previous = key
    left = children[0]
    parts.append(b"\x61l\xf6" if left is None else b"\x61l" + _LINK + left)
    return b"".join(parts)


def replace_children(block: bytes, node: Node, children: Mapping[int, bytes | None]) -> bytes:
    """Return the block with some child links replaced, all other bytes as they are."""
    first = 3 + len(_write_head(0x80, len(node.keys)))
    # The link before the first entry stands last; so this goes from back to front.
    for index in sorted(children, key=lambda index: -index if index else -len(block)):
        old, new = node.children[index], children[index]
        end = len(block)
        if index:
            value = node.values[index - 1]
            head = _VALUE_LINK if len(value) == CID_LENGTH else _odd_value_link(value)
            varying = sum(map(len, chain.from_iterable(node.pieces[:index])))
            end = first + index * node.fixed + varying - len(head) - len(value)
        start = end - (1 if old is None else 41)
        block = block[:start] + (b"\xf6" if new is None else _LINK + new) + block[end:]
    return block


def _odd_value_link(value: bytes) -> bytes:
    return b"\x61v\xd8\x2a" + _write_head(0x40, len(value) + 1) + b"\x00"


def _write_head(major: int, value: int) -> bytes:
    return _HEADS[major][value] if value < 1_100 else _make_head(major, value)


def _common_prefix(first: bytes, second: bytes) -> int:
    size = min(len(first), len(second))
    # Comparing as one big number costs less than a loop over the bytes.
    differing = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (differing.bit_length() + 7) // 8
