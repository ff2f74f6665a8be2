"""Read and write DAG-CBOR in the protocol's one canonical form (rules CB-*).

`decode` is the strict door for everything signed or hashed. It keeps links and byte strings
apart: a link comes back as `Link`, a byte string as plain `bytes`. `decode_fast` is for
envelopes and tree nodes, whose shape the caller knows and whose bytes it encodes again.

The codecs underneath allocate what a header claims before the content is there: 64 kB of
nested arrays that each claim the rest cost seconds and gigabytes (measured: cbrrr 11 s and
2.4 GB). So a header-only scan in Python runs first wherever that could happen.
"""

from typing import Any, NoReturn

import cbrrr
import libipld

from sync.atproto.cid import is_blessed
from sync.errors import ProtocolError

MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)

# Bytes longer than this are always scanned; shorter ones when their headers could claim more
# items than these, all together (8 bytes an item).
_ALWAYS_SCANNED_BYTES = 65_536
_HARMLESS_CLAIMS = 2**18
_HARMLESS_CLAIMS_FAST = 2**20
# First bytes of arrays and maps whose length stands in bytes of its own.
_LONG_CONTAINERS = bytes([*range(0x98, 0x9C), *range(0xB8, 0xBC)])

# Major types, the upper three bits of every header.
_STRINGS = (2, 3)
_ARRAY, _MAP, _TAG, _SIMPLE = 4, 5, 6, 7
_CONTAINERS = (_ARRAY, _MAP)
_LEAVES = frozenset((str, bytes, bool, type(None)))


class CborError(ProtocolError):
    """Bytes (or a value) that are not DAG-CBOR as the protocol allows it."""


class Link(bytes):
    """A link to a block: the 36 raw bytes of a CID, told apart from a byte string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Link({self.hex()})"


def decode(data: bytes) -> Any:
    """Decode one object strictly: canonical, no floats, blessed links, bounded depth."""
    if may_be_bomb(data):
        check_depth(data, MAX_DEPTH)
    try:
        value = cbrrr.decode_dag_cbor(data, cid_ctor=Link)
    except ValueError as error:
        _explain(data, error)
    check_value(value)
    return value


def encode(value: Any) -> bytes:
    """Encode a value of the types that `decode` returns as canonical bytes."""
    check_value(value)
    try:
        return bytes(cbrrr.encode_dag_cbor(value, cid_type=Link))
    except (TypeError, ValueError) as error:
        raise CborError("not_encodable", str(error), rule="CB-19") from error


def decode_fast(data: bytes) -> Any:
    """Decode one object where the shape is known and checked later; links are raw bytes.

    Lets through non-minimal lengths, floats and odd CIDs: the caller encodes again and
    compares, or reads only fields of known types.
    """
    if may_be_bomb(data, harmless_claims=_HARMLESS_CLAIMS_FAST):
        check_depth(data, MAX_DEPTH)
    try:
        return libipld.decode_dag_cbor(data)
    except (ValueError, RecursionError) as error:
        raise CborError("not_cbor", str(error)) from error


def encode_fast(value: Any) -> bytes:
    """Encode tree nodes quickly: a byte string that parses as a CID becomes a link."""
    return libipld.encode_dag_cbor(value)


def may_be_bomb(data: bytes, *, harmless_claims: int = _HARMLESS_CLAIMS) -> bool:
    """Tell whether decoding could cost far more than the bytes are worth (CB-16, ES-19).

    No header can claim more items than there are bytes, so the count of long headers bounds
    what all of them claim. Digests hold such bytes too: the answer is a maybe.
    """
    size = len(data)
    if size * size <= harmless_claims:
        return False
    if size > _ALWAYS_SCANNED_BYTES:
        return True
    return (size - len(data.translate(None, _LONG_CONTAINERS))) * size > harmless_claims


def check_depth(data: bytes, limit: int) -> None:
    """Refuse bytes that are nested too deep, cut short or too long, by their headers alone."""
    _scan(data, limit)


def check_value(value: Any) -> None:
    """Refuse floats, integers beyond 64 bits, odd links and deep nesting in a decoded value.

    Goes level by level instead of recursing, so that depth cannot exhaust the stack.
    """
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in _LEAVES:
                continue
            if kind is int:
                if not MIN_INTEGER <= item <= MAX_INTEGER:
                    raise CborError("integer", "beyond 64 bits", rule="RC-11")
            elif kind is Link:
                if not is_blessed(item):
                    raise CborError("bad_link", "not a CID of the protocol", rule="CB-08")
            elif kind is dict or kind is list:
                if depth >= MAX_DEPTH:
                    raise CborError("too_deep", f"more than {MAX_DEPTH} levels", rule="CB-15")
                inner.extend(item.values() if kind is dict else item)
            elif kind is float:
                raise CborError("float", rule="CB-12")
            else:
                raise CborError("not_encodable", f"a {kind.__name__}", rule="CB-09")
        level, depth = inner, depth + 1


def _explain(data: bytes, error: ValueError) -> NoReturn:
    """Raise the reason why the strict decoder refused the bytes."""
    if _scan(data, MAX_DEPTH):
        raise CborError("float", rule="CB-12") from error
    raise CborError("not_canonical", str(error), rule="CB-19") from error


def _scan(data: bytes, limit: int) -> bool:
    """Walk over the headers of one object; tell whether a float is among them.

    Linear in the bytes present: nothing is allocated for what a length merely claims.
    """
    position, end = 0, len(data)
    waiting: list[int] = []  # items still to come in each open container
    has_float = False
    try:
        while True:
            kind, argument = data[position] >> 5, data[position] & 0x1F
            position += 1
            if kind == _SIMPLE:
                has_float |= 25 <= argument <= 27
            if argument > 23:
                argument, position = _long_argument(data, position, argument)
            if kind in _STRINGS:
                position += argument
            elif kind == _TAG:
                continue
            elif kind in _CONTAINERS:
                if len(waiting) >= limit:
                    raise CborError("too_deep", f"more than {limit} levels", rule="CB-15")
                waiting.append((argument if kind == _ARRAY else 2 * argument) + 1)
            if not _take_one(waiting):
                break
    except IndexError:
        raise CborError("not_cbor", "cut short", rule="CB-16") from None
    if position != end:
        raise CborError("not_cbor", "cut short, or bytes after the end", rule="CB-14")
    return has_float


def _take_one(waiting: list[int]) -> bool:
    """Count an item off the innermost container, close what is full; tell if any is open."""
    while waiting:
        waiting[-1] -= 1
        if waiting[-1]:
            return True
        waiting.pop()
    return False


def _long_argument(data: bytes, position: int, size_code: int) -> tuple[int, int]:
    """Read a header's number that stands in bytes of its own, and the position behind it."""
    if size_code > 27:
        raise CborError("not_canonical", "indefinite length", rule="CB-02")
    end = position + (1 << (size_code - 24))
    return int.from_bytes(data[position:end], "big"), end
