"""Say by another codec than the product's whether bytes are DAG-CBOR as the protocol allows it.

Nothing of `sync` is used. What cbor2 reads and writes again as the very same bytes is in the one
canonical form; what the protocol forbids beyond that is a matter of the values.
"""

from typing import Any

import cbor2

MAX_DEPTH = 64
BLESSED_LINKS = (b"\0\x01\x71\x12\x20", b"\0\x01\x55\x12\x20")


class NotAllowed(Exception):
    """Bytes that are not canonical, or hold what the protocol forbids."""


def read_strictly(data: bytes) -> Any:
    """Read one object; a link is a CBORTag. Raises NotAllowed."""
    value = read_canonical(data)
    if not _is_allowed(value, depth=0):
        raise NotAllowed
    return value


def read_canonical(data: bytes) -> Any:
    """Read one object that cbor2 encodes to the same bytes; raises NotAllowed."""
    try:
        # Maps as keys of maps, some levels of them, would take cbor2 for ever to hash.
        value = cbor2.loads(data, strict_hashable_types=True)
        is_same = cbor2.dumps(value, canonical=True) == data
    except Exception as error:  # whatever it is: these bytes are no good
        raise NotAllowed from error
    if not is_same:
        raise NotAllowed
    return value


def as_json(value: Any) -> Any:
    """Return the JSON form that the protocol gives a value; raises NotAllowed for reserved keys."""
    if isinstance(value, dict):
        if "$link" in value or "$bytes" in value:
            raise NotAllowed
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, cbor2.CBORTag):
        return {"$link": _base32(value.value[1:])}
    if isinstance(value, bytes):
        return {"$bytes": _base64(value)}
    return value


def _is_allowed(value: Any, *, depth: int) -> bool:
    kind = type(value)
    if kind is dict or kind is list:
        if depth == MAX_DEPTH or (kind is dict and any(type(key) is not str for key in value)):
            return False
        items = value.values() if kind is dict else value
        return all(_is_allowed(item, depth=depth + 1) for item in items)
    if kind is int:
        return -(2**63) <= value < 2**63
    if kind is cbor2.CBORTag:
        link = value.value
        return (
            value.tag == 42
            and type(link) is bytes
            and len(link) == 37
            and link.startswith(BLESSED_LINKS)
        )
    return value is None or kind in (str, bytes, bool)


def _base32(data: bytes) -> str:
    """Write bytes as multibase base32, by arithmetic."""
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    return "b" + _digits(data, digits, bits=5)


def _base64(data: bytes) -> str:
    """Write bytes as base64 without padding, by arithmetic."""
    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return _digits(data, upper + upper.lower() + "0123456789+/", bits=6)


def _digits(data: bytes, alphabet: str, *, bits: int) -> str:
    count = -(-len(data) * 8 // bits)
    number = int.from_bytes(data, "big") << (count * bits - len(data) * 8)
    mask = (1 << bits) - 1
    return "".join(alphabet[number >> (bits * at) & mask] for at in reversed(range(count)))
