"""Read a record by its lexicon, straightforwardly: what the columns of a view are compared with."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from sync.atproto.syntax import is_datetime

Json = Any
_BYTES = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_PARTS = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))"
)


def as_stored(value: Json) -> Json:
    """Return a value as the database has it: a number of the form 1e3 is a whole one there."""

    def read(digits: str) -> int | float:
        number = Decimal(digits)
        return int(number) if number == number.to_integral_value() else float(number)

    return json.loads(json.dumps(value), parse_float=read)


def read_text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def read_boolean(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


def read_integer(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def read_datetime(value: Json) -> datetime | None:
    """Return the moment, to the microsecond; None also where Python has no such year."""
    if not isinstance(value, str) or not is_datetime(value):
        return None
    match = _PARTS.fullmatch(value)
    assert match is not None
    *date, fraction, sign, hours, minutes = match.groups()
    zone = UTC
    if sign is not None:
        zone = timezone(timedelta(hours=int(hours), minutes=int(minutes)) * int(f"{sign}1"))
    year, month, day, hour, minute, second = map(int, date)
    micro_s = int((fraction or "").ljust(6, "0")[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, micro_s, tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_bytes(value: Json) -> bytes | None:
    if not isinstance(value, dict) or list(value) != ["$bytes"]:
        return None
    text = value["$bytes"]
    if not isinstance(text, str) or not _BYTES.fullmatch(text):
        return None
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        return None


def read_link(value: Json) -> str | None:
    if not isinstance(value, dict) or list(value) != ["$link"]:
        return None
    return read_text(value["$link"])


def read_blob(value: Json) -> Json:
    if not isinstance(value, dict) or read_text(value.get("mimeType")) is None:
        return None
    if value.get("$type") == "blob":
        size = read_integer(value.get("size"))
        is_blob = read_link(value.get("ref")) is not None and size is not None and size >= 0
    else:
        is_blob = "$type" not in value and read_text(value.get("cid")) is not None
    return value if is_blob else None


def read_object(value: Json) -> Json:
    return value if isinstance(value, dict) else None


def read_array(value: Json) -> Json:
    return value if isinstance(value, list) else None


def read_json(value: Json) -> Json:
    return value


def _all(read: Callable[[Json], Json]) -> Callable[[Json], Json]:
    def read_all(value: Json) -> Json:
        if not isinstance(value, list):
            return None
        items = [read(item) for item in value]
        return None if any(item is None for item in items) else items

    return read_all


READERS: dict[str, Callable[[Json], Json]] = {
    "text": read_text,
    "boolean": read_boolean,
    "integer": read_integer,
    "datetime": read_datetime,
    "bytes": read_bytes,
    "link": read_link,
    "blob": read_blob,
    "object": read_object,
    "array": read_array,
    "json": read_json,
    "texts": _all(read_text),
    "booleans": _all(read_boolean),
    "integers": _all(read_integer),
}
SQL_TYPES = {
    "text": "text",
    "boolean": "boolean",
    "integer": "bigint",
    "datetime": "timestamp with time zone",
    "bytes": "bytea",
    "link": "text",
    "blob": "jsonb",
    "object": "jsonb",
    "array": "jsonb",
    "json": "jsonb",
    "texts": "text[]",
    "booleans": "boolean[]",
    "integers": "bigint[]",
}
_PLAIN = {
    "token": "text",
    "boolean": "boolean",
    "integer": "integer",
    "bytes": "bytes",
    "cid-link": "link",
    "blob": "blob",
    "object": "object",
    "union": "object",
    "unknown": "object",
}
_LISTS = {"string": "texts", "token": "texts", "boolean": "booleans", "integer": "integers"}


def resolve(schema: Json, lexicon: Mapping[str, Json]) -> Json:
    """Follow references within the lexicon; None where they lead out of it, or in a circle."""
    seen = []
    while isinstance(schema, dict) and schema.get("type") == "ref":
        ref = schema.get("ref")
        if not isinstance(ref, str) or ref in seen:
            return None
        seen.append(ref)
        nsid, hash_sign, name = ref.partition("#")
        if nsid not in ("", lexicon["id"]) or (hash_sign and not name):
            return None
        schema = lexicon["defs"].get(name or "main")
    return schema


def _type(schema: Json) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else ""


def reader_of(schema: Json, lexicon: Mapping[str, Json]) -> str:
    """Name the reader for a property."""
    found = resolve(schema, lexicon)
    kind = _type(found)
    if kind == "string":
        return "datetime" if found.get("format") == "datetime" else "text"
    if kind == "array":
        items = resolve(found.get("items"), lexicon)
        return _LISTS.get(_type(items), "array")
    return _PLAIN.get(kind, "json")
