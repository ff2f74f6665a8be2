"""Read the small objects that wrap others: frame headers, event bodies, CAR headers.

They come from strangers before any signature was checked. A general codec allocates what a
length merely claims, and lets through forms that are not canonical. So a scan over the heads
goes first, linear in the bytes present; the codec's result counts if it encodes to the same
bytes; and where it does not, `read_item` reads the bytes one by one and says what is wrong.
"""

import sys
from typing import Any

import libipld

from sync.atproto.cbor import MAX_DEPTH, CborError, Link, check_depth

# Honest frames have some thousand items. Each becomes an object here, so that five megabytes of
# empty maps, say, would take 360 MB and seconds.
MAX_ITEMS = 100_000
_MAX_OBJECTS = 8

_SMALLEST = (24, 0x100, 0x10000, 0x1_0000_0000)
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}


def read_objects(data: bytes) -> list[Any]:
    """Read the objects that stand one after another; links are bytes, as in byte strings."""
    at = count = 0
    while at < len(data):
        at = skip_item(data, at, max_items=MAX_ITEMS)
        count += 1
        if count > _MAX_OBJECTS:
            raise CborError("too_many_items", f"more than {_MAX_OBJECTS} objects", rule="ES-19")
    try:
        values: list[Any] = libipld.decode_dag_cbor_multi(data)
        if b"".join(map(libipld.encode_dag_cbor, values)) == data:
            return values
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    values, at = [], 0
    while at < len(data):
        value, at = read_item(data, at)
        values.append(value)
    return values


def read_item(data: bytes, at: int) -> tuple[Any, int]:
    """Read one object that starts at a position: (value, position after it)."""
    try:
        return _read(data, at, 0)
    except IndexError:
        raise CborError("not_cbor", "cut short", rule="CB-16") from None
    except UnicodeDecodeError as error:
        raise CborError("not_cbor", "text is not UTF-8", rule="CB-11") from error


def skip_item(data: bytes, at: int, *, max_items: int = sys.maxsize) -> int:
    """Return the position after one object, all of whose parts are there, by its heads alone."""
    start, items, containers, claimed = at, 1, 0, 0
    try:
        while items:
            head = data[at]
            argument = head & 31
            at += 1
            items -= 1
            if argument > 23:
                if head > 0xF8:
                    raise CborError("float", "or an indefinite end", rule="CB-12")
                argument, at = _long_argument(data, at, argument)
            if head < 0x40:
                continue
            if head < 0x80:
                at += argument
            elif head < 0xC0:
                inner = argument if head < 0xA0 else 2 * argument
                items += inner
                claimed += inner
                containers += 1
            elif head < 0xE0:
                items += 1
    except IndexError:
        raise CborError("not_cbor", "cut short", rule="CB-16") from None
    if at > len(data):
        raise CborError("not_cbor", "cut short", rule="CB-16")
    if claimed > max_items:
        raise CborError("too_many_items", f"more than {max_items}", rule="ES-19")
    if containers > MAX_DEPTH:  # only then can they be nested too deep
        check_depth(data[start:at], MAX_DEPTH)
    return at


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    head = data[at]
    major = head >> 5
    argument = head & 31
    at += 1
    if major == 7:
        return _read_simple(head), at
    if argument > 23:
        argument, at = _long_argument(data, at, argument)
        if argument < _SMALLEST[(head & 31) - 24]:
            raise CborError("not_canonical", "length not in shortest form", rule="CB-01")
    if major == 3:
        end = at + argument
        if end > len(data):
            raise CborError("not_cbor", "cut short", rule="CB-16")
        return data[at:end].decode(), end
    if major == 5:
        return _read_map(data, at, argument, depth + 1)
    if major == 2:
        end = at + argument
        if end > len(data):
            raise CborError("not_cbor", "cut short", rule="CB-16")
        return data[at:end], end
    if major == 6:
        return _read_link(data, head, at)
    if major == 4:
        return _read_array(data, at, argument, depth + 1)
    return (argument if major == 0 else -1 - argument), at


def _long_argument(data: bytes, at: int, low: int) -> tuple[int, int]:
    if low > 27:
        raise CborError("not_canonical", "indefinite length", rule="CB-02")
    end = at + (1 << (low - 24))
    if end > len(data):
        raise CborError("not_cbor", "cut short", rule="CB-16")
    return int.from_bytes(data[at:end], "big"), end


def _read_simple(head: int) -> bool | None:
    if head not in _SIMPLE:
        raise CborError("not_canonical", "a float or an unknown simple value", rule="CB-09")
    return _SIMPLE[head]


def _read_link(data: bytes, head: int, at: int) -> tuple[Link, int]:
    if head != 0xD8 or data[at - 1] != 42:
        raise CborError("not_canonical", "a tag other than 42", rule="CB-06")
    # Looked at before it is read: tags upon tags would nest without end.
    if data[at] >> 5 != 2:
        raise CborError("bad_link", "tag 42 without a CID", rule="CB-06")
    value, end = _read(data, at, 0)
    if len(value) < 2 or value[0]:
        raise CborError("bad_link", "tag 42 without a CID", rule="CB-06")
    return Link(value[1:]), end


def _read_array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise CborError("too_deep", f"more than {MAX_DEPTH} levels", rule="CB-15")
    items = []
    for _ in range(count):
        item, at = _read(data, at, depth)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise CborError("too_deep", f"more than {MAX_DEPTH} levels", rule="CB-15")
    fields: dict[str, Any] = {}
    previous = b""
    for index in range(count):
        # A short text as key, in one step; longer ones take the common way.
        start, size = at, data[at] - 0x60
        if 0 <= size < 24:
            at += 1 + size
            name = data[start + 1 : at].decode()
        else:
            name, at = _read(data, at, depth)
            if type(name) is not str:
                raise CborError("not_canonical", "a map key is not text", rule="CB-03")
        # The encoded key, length first, sorts as the rule wants it: shorter first, then bytes.
        key = data[start:at]
        if index and key <= previous:
            raise CborError("not_canonical", "map keys repeat or do not ascend", rule="CB-04")
        previous = key
        fields[name], at = _read(data, at, depth)
    return fields, at
