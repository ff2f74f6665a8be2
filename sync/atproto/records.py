"""Turn record blocks into JSON that PostgreSQL can hold, and back into the same bytes.

A record is stored as `jsonb` only if that loses nothing: strict decoding makes the JSON form
bijective, so `json_to_block` of the stored value hashes to the record's CID (DM-11). Where it
would lose something, the bytes are kept beside a reason and nothing is guessed (D-10).

Almost all records take the short way: C code decodes and encodes, and a few searches over the
bytes prove that nothing odd can be inside. Only when one of them hits is the value looked at.
"""

import base64
import re
from typing import Any, NamedTuple

import cbor2
import cbrrr
import msgspec

from sync.atproto import cbor
from sync.atproto.cbor import CborError, Link
from sync.atproto.cid import DAG_CBOR_PREFIX, RAW_PREFIX, parse_cid

MAX_RECORD_BYTES = 1_048_576

_LINK_TAG = b"\xd8\x2a"
_LINK_TO_BLOCK = _LINK_TAG + b"\x58\x25\x00" + DAG_CBOR_PREFIX
_LINK_TO_RAW = _LINK_TAG + b"\x58\x25\x00" + RAW_PREFIX
_RESERVED_KEY = re.compile(rb"\$(?:link|bytes)")
# Heads of integers of eight bytes, behind which a set top bit means "beyond int64". One digest
# in eight holds such a pair by chance, so the JSON text must also show a number that long.
# (Two patterns: with a literal in front each is a memchr, as one character class it is not.)
_HUGE_POSITIVE = re.compile(rb"\x1b[\x80-\xff]")
_HUGE_NEGATIVE = re.compile(rb"\x3b[\x80-\xff]")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

_encode_json = msgspec.json.Encoder().encode


class RecordValue(NamedTuple):
    """A record as it is stored: JSON text, or else the bytes and why there is no JSON.

    Reasons: too_big (no bytes either), not_cbor, not_canonical, too_deep, not_a_map, float,
    integer, bad_link, ambiguous (a map that JSON would read as a link or as bytes), and nul:
    valid text with U+0000, which PostgreSQL cannot hold.
    """

    value: str | None
    raw: bytes | None
    reason: str | None


def read_record(block: bytes) -> RecordValue:
    """Judge a record block and give its JSON; never raises, whatever the bytes are (FA-10)."""
    if len(block) > MAX_RECORD_BYTES:
        return RecordValue(None, None, "too_big")
    try:
        return RecordValue(_read_json(block), None, None)
    except CborError as error:
        return RecordValue(None, block, error.reason)


def json_to_block(value: object) -> bytes:
    """Encode a record's JSON form (already parsed) as the bytes its CID names."""
    return cbor.encode(_from_json(value, cbor.MAX_DEPTH))


def second_codec_block(value: object) -> bytes:
    """Encode a record's JSON form with another codec than ingest uses.

    Shares no code with the way in, so that `standpipe verify` would notice a fault there.
    """
    try:
        return bytes(cbor2.dumps(_for_second_codec(value), canonical=True))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CborError("not_encodable", str(error)) from error


def check_data_model(value: object) -> None:
    """Refuse a JSON value that a careful writer must not publish (RC-06, RC-07, DM-04).

    Readers are milder on purpose: ingest stores what is merely malformed inside (RC-09).
    """
    if not isinstance(value, dict):
        raise CborError("not_a_map", rule="RC-06")
    json_to_block(value)
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            _check_typed_map(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _read_json(block: bytes) -> str:
    """Return the JSON text of a record, or raise the reason why it has none."""
    if cbor.may_be_bomb(block):
        cbor.check_depth(block, cbor.MAX_DEPTH)
    try:
        value = cbrrr.decode_dag_cbor(block, True)
        text: bytes = _encode_json(value)
    except (ValueError, RecursionError) as error:
        _check_closely(block)
        raise CborError("not_canonical", str(error), rule="CB-19") from error
    if block[0] >> 5 != 5:
        raise CborError("not_a_map", rule="RC-06")
    if _looks_odd(block, value, text):
        _check_closely(block)
    return text.decode()


def _looks_odd(block: bytes, value: Any, text: bytes) -> bool:
    """Tell whether something that JSON or PostgreSQL cannot hold *might* be inside."""
    links = block.count(_LINK_TAG)
    return (
        _RESERVED_KEY.search(block) is not None
        or b"\\u0000" in text
        or (links != 0 and links != block.count(_LINK_TO_BLOCK) + block.count(_LINK_TO_RAW))
        or (text.count(b"{") + text.count(b"[") > cbor.MAX_DEPTH and _nests_deeply(value))
        or (
            (_HUGE_POSITIVE.search(block) or _HUGE_NEGATIVE.search(block)) is not None
            and _LONG_NUMBER.search(text) is not None
        )
    )


def _nests_deeply(value: Any) -> bool:
    """Tell whether JSON reaches the depth limit; links and bytes count as a level in JSON."""
    level = [value]
    for _ in range(cbor.MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if type(item) is dict:
                inner.extend(item.values())
            elif type(item) is list:
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True


def _check_closely(block: bytes) -> None:
    """Look at every value of a record that might be odd; raise the reason if it is."""
    value = cbor.decode(block)
    if type(value) is not dict:
        raise CborError("not_a_map", rule="RC-06")
    has_nul = False
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            if "$link" in item or "$bytes" in item:
                raise CborError("ambiguous", "a map with a reserved key", rule="DM-07")
            pending.extend(item)
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)
        elif type(item) is str:
            has_nul = has_nul or "\0" in item
    if has_nul:
        raise CborError("nul", "text with U+0000", rule="OP-04")


def _from_json(value: Any, levels: int) -> Any:
    """Return the value with links and byte strings in place of their JSON forms."""
    if isinstance(value, dict):
        if "$link" in value or "$bytes" in value:
            return _from_reserved(value)
        if not levels:
            raise CborError("too_deep", f"more than {cbor.MAX_DEPTH} levels", rule="CB-15")
        return {key: _from_json(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list):
        if not levels:
            raise CborError("too_deep", f"more than {cbor.MAX_DEPTH} levels", rule="CB-15")
        return [_from_json(item, levels - 1) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not tell 123.0 from 123 (DM-08)
    return value


def _from_reserved(value: dict[str, Any]) -> bytes:
    """Read `{"$link": …}` or `{"$bytes": …}`, which must be the only key (DM-01, DM-02)."""
    ((name, text), *others) = value.items()
    if others or not isinstance(text, str):
        raise CborError("ambiguous", "a reserved key with the wrong shape", rule="DM-07")
    try:
        if name == "$link":
            return Link(parse_cid(text))
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise CborError("ambiguous", f"{name} is malformed", rule="DM-07") from error


def _for_second_codec(value: Any) -> Any:
    """Return what cbor2 writes as the record: tag 42 for a link, bytes for a byte string."""
    if isinstance(value, list):
        return [_for_second_codec(item) for item in value]
    if not isinstance(value, dict):
        if value is None or isinstance(value, str | int):
            return value
        raise CborError("not_encodable", f"a {type(value).__name__}")
    if "$link" in value or "$bytes" in value:
        return _reserved_for_second_codec(value)
    return {key: _for_second_codec(item) for key, item in value.items()}


def _reserved_for_second_codec(value: dict[str, Any]) -> Any:
    """Read a link or a byte string in the one spelling in which ingest stores it."""
    ((name, text),) = value.items()
    if name == "$link":
        cid = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
        spelled = "b" + base64.b32encode(cid).decode().lower().rstrip("=")
        read: Any = cbor2.CBORTag(42, b"\0" + cid)
    else:
        read = base64.b64decode(text + "=" * (-len(text) % 4))
        spelled = base64.b64encode(read).decode().rstrip("=")
    if spelled != text:
        raise CborError("not_encodable", f"{name} is spelled in another way")
    return read


def _check_typed_map(value: dict[str, Any]) -> None:
    """Refuse a map whose `$type` is empty or no text, and a malformed blob."""
    kind = value.get("$type")
    if "$type" in value and (not isinstance(kind, str) or not kind):
        raise CborError("bad_type", "$type must be a text that is not empty", rule="RC-07")
    if kind != "blob":
        return
    link, size, media_type = (value.get(name) for name in ("ref", "size", "mimeType"))
    cid_text = link.get("$link") if isinstance(link, dict) else None
    is_raw = isinstance(cid_text, str) and parse_cid(cid_text).startswith(RAW_PREFIX)
    is_sized = type(size) is int and size >= 0
    if not (is_raw and is_sized and isinstance(media_type, str) and media_type):
        raise CborError("bad_blob", "ref, mimeType and size do not fit", rule="DM-04")
