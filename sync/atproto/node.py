"""Read and write the nodes of the Merkle search tree of a repo (rules MS-01, MS-06..10, MS-15..22).

A node has exactly one valid encoding. The usual node goes through a fast codec, and counts if it
encodes to the same bytes again. That codec cannot tell links from byte strings and allocates
what a length merely claims; so whatever is large or odd is read and written by hand here, where
nothing nests and no length is believed before the bytes are there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import libipld

from sync.atproto.cid import CID_LENGTH, DAG_CBOR_PREFIX, RAW_PREFIX, is_blessed
from sync.errors import ProtocolError

MAX_KEY_BYTES = 1_024
MAX_NODE_ENTRIES = 8_192

# Above this, bytes made for it could cost the codec much time and memory (limits: measured).
_USUAL_NODE_BYTES = 4_096
# No valid path starts below the space; what does could be taken for a CID by the codec.
_LEAST_USUAL_KEY = b"\x20"

_VALUE_PREFIXES = (DAG_CBOR_PREFIX, RAW_PREFIX)

_LINK = b"\xd8\x2a\x58\x25\x00"
_NODE_LINK = _LINK + DAG_CBOR_PREFIX
_VALUE_LINK = b"\x61v" + _LINK
_NULL = 0xF6


class MstError(ProtocolError):
    """A tree that breaks a rule, or lacks a node that is needed."""


class Node(NamedTuple):
    """One node, its keys in full: `children[i]` lies before `keys[i]`, the last one after them all.

    `raw` is the codec's form of a usual node, for replace_children(). A tuple and not a
    dataclass: thousands are made per second.
    """

    keys: list[bytes]
    values: list[bytes]
    children: list[bytes | None]
    raw: dict[str, Any] | None


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
    """Read a node by the codec, or return None where a closer look is needed."""
    try:
        raw: dict[str, Any] = libipld.decode_dag_cbor(block)
        if len(raw) != 2 or libipld.encode_dag_cbor(raw) != block:
            return None
        return _check_usual(raw)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _check_usual(raw: dict[str, Any]) -> Node | None:
    """Complete the keys and check all parts; one loop, since a commit has some forty entries."""
    left = raw["l"]
    if left is not None and (len(left) != CID_LENGTH or left[:4] != DAG_CBOR_PREFIX):
        return None
    keys: list[bytes] = []
    values: list[bytes] = []
    children: list[bytes | None] = [left]
    key = b""
    for entry in raw["e"]:
        suffix, shared, value, child = entry["k"], entry["p"], entry["v"], entry["t"]
        # Greater in the first byte that is not shared: the order and the longest prefix.
        if (
            (suffix[0] <= key[shared] or shared < 0)
            if shared < len(key)
            else (shared != len(key) or suffix < _LEAST_USUAL_KEY)
        ):
            return None
        if len(value) != CID_LENGTH or value[:4] not in _VALUE_PREFIXES or len(entry) != 4:
            return None
        if child is not None and (len(child) != CID_LENGTH or child[:4] != DAG_CBOR_PREFIX):
            return None
        key = key[:shared] + suffix
        if type(shared) is not int or len(key) > MAX_KEY_BYTES:
            return None
        keys.append(key)
        values.append(value)
        children.append(child)
    return Node(keys, values, children, raw)


def _read_carefully(block: bytes) -> Node:
    if block[:3] != b"\xa2\x61e":
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


def replace_children(node: Node, children: Mapping[int, bytes | None]) -> bytes:
    """Encode a node with some child links replaced and all else as it is."""
    if node.raw is None:
        links = [children.get(index, link) for index, link in enumerate(node.children)]
        return write_node(node.keys, node.values, links)
    entries = node.raw["e"].copy()
    for index, link in children.items():
        if index:
            entries[index - 1] = {**entries[index - 1], "t": link}
    block: bytes = libipld.encode_dag_cbor({"e": entries, "l": children.get(0, node.children[0])})
    return block


def write_node(keys: list[bytes], values: list[bytes], children: list[bytes | None]) -> bytes:
    """Encode a node; the inverse of read_node()."""
    entries = []
    previous = b""
    for index, key in enumerate(keys):
        shared = _common_prefix(previous, key)
        value, suffix = values[index], key[shared:]
        if suffix < _LEAST_USUAL_KEY or not is_blessed(value):
            return _write_carefully(keys, values, children)
        entries.append({"k": suffix, "p": shared, "t": children[index + 1], "v": value})
        previous = key
    block: bytes = libipld.encode_dag_cbor({"e": entries, "l": children[0]})
    return block


def _write_carefully(keys: list[bytes], values: list[bytes], children: list[bytes | None]) -> bytes:
    parts = [b"\xa2\x61e", _write_head(0x80, len(keys))]
    previous = b""
    for index, key in enumerate(keys):
        shared = _common_prefix(previous, key)
        value = values[index]
        parts += (b"\xa4\x61k", _write_head(0x40, len(key) - shared), key[shared:])
        parts += (b"\x61p", _write_head(0, shared), b"\x61t", _write_child(children[index + 1]))
        parts += (b"\x61v\xd8\x2a", _write_head(0x40, len(value) + 1), b"\x00", value)
        previous = key
    parts += (b"\x61l", _write_child(children[0]))
    return b"".join(parts)


def _write_child(child: bytes | None) -> bytes:
    return b"\xf6" if child is None else _LINK + child


def _write_head(major: int, value: int) -> bytes:
    """Write a CBOR head; two bytes of length suffice for the limits of a node."""
    if value < 24:
        return bytes((major + value,))
    low, size = (24, 1) if value < 0x100 else (25, 2)
    return bytes((major + low,)) + value.to_bytes(size, "big")


def _common_prefix(first: bytes, second: bytes) -> int:
    size = min(len(first), len(second))
    # Comparing as one big number costs less than a loop over the bytes.
    differing = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (differing.bit_length() + 7) // 8
