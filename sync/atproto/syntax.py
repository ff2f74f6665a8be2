"""Judge the syntax of every identifier in the protocol (rules SX-*).

All checks are pure text matching with `fullmatch`: `$` would accept a final newline (SX-19).
Nothing is folded, trimmed or normalized, since two spellings are two names (MT-02, SX-09).
"""

import calendar
import functools
import re

MAX_DID_LENGTH = 2048
MAX_HANDLE_LENGTH = 253
MAX_NSID_LENGTH = 317
MAX_RKEY_LENGTH = 512
MAX_AT_URI_LENGTH = 8192
MAX_DATETIME_LENGTH = 64

# Names that never resolve on the public internet (SX-06); `test` is for development.
RESERVED_TLDS = frozenset(
    ("alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test")
)
INVALID_HANDLE = "handle.invalid"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_DID_PLC = re.compile(r"did:plc:[a-z2-7]{24}")
_DID_WEB = re.compile(r"did:web:([a-z0-9.-]+)(%3A[0-9]{1,5})?")
_HANDLE = re.compile(rf"(?:{_LABEL}\.)+[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?")
_NSID = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    rf"(?:\.{_LABEL})+"
    r"\.[a-zA-Z][a-zA-Z0-9]{0,62}"
)
_RKEY = re.compile(r"[A-Za-z0-9.\-_:~]{1,512}")
_TID = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)

_TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_TID_VALUE = {letter: value for value, letter in enumerate(_TID_ALPHABET)}


def is_did(text: str) -> bool:
    """Tell whether text has the syntax of a DID of any method (SX-01)."""
    return len(text) <= MAX_DID_LENGTH and _DID.fullmatch(text) is not None


def is_supported_did(text: str, *, allow_local: bool = False) -> bool:
    """Tell whether a DID is of a method we can resolve: plc, or web on a host (SX-02..04).

    `allow_local` is the development switch: localhost with a port, and names under `test`.
    """
    if _DID_PLC.fullmatch(text):
        return True
    match = _DID_WEB.fullmatch(text) if is_did(text) else None
    if match is None:
        return False
    host, port = match.groups()
    if host == "localhost":
        return allow_local
    if port is not None or not is_handle(host):
        return False
    top = host.rpartition(".")[2]
    return top not in RESERVED_TLDS or (top == "test" and allow_local)


def is_handle(text: str) -> bool:
    """Tell whether text has the syntax of a handle, in any case (SX-05)."""
    return len(text) <= MAX_HANDLE_LENGTH and _HANDLE.fullmatch(text) is not None


def is_resolvable_handle(text: str, *, allow_local: bool = False) -> bool:
    """Tell whether a handle is worth a lookup: none under a reserved name is (SX-06, SX-07)."""
    if not is_handle(text):
        return False
    top = text.rpartition(".")[2].lower()
    return top not in RESERVED_TLDS or (top == "test" and allow_local)


def is_at_identifier(text: str) -> bool:
    """Tell whether text is a DID or a handle."""
    return is_did(text) if text.startswith("did:") else is_handle(text)


@functools.lru_cache(maxsize=4096)
def is_nsid(text: str) -> bool:
    """Tell whether text has the syntax of a namespaced identifier (SX-08).

    The authority's own limit of 253 is not applied: an official vector goes beyond it.
    """
    return len(text) <= MAX_NSID_LENGTH and _NSID.fullmatch(text) is not None


def is_collection_pattern(text: str) -> bool:
    """Tell whether text names a collection, or all collections below a name (`a.b.*`)."""
    if text.endswith(".*"):
        return is_nsid(text[:-1] + "x")
    return is_nsid(text)


def is_rkey(text: str) -> bool:
    """Tell whether text has the syntax of a record key (SX-10)."""
    return _RKEY.fullmatch(text) is not None and text not in (".", "..")


def split_path(key: bytes) -> tuple[str, str] | None:
    """Split a tree key into collection and record key; None where it is no path (SX-20)."""
    try:
        collection, slash, rkey = key.decode("ascii").partition("/")
    except UnicodeDecodeError:
        return None
    if not slash or not is_nsid(collection) or not is_rkey(rkey):
        return None
    return collection, rkey


def is_at_uri(text: str) -> bool:
    """Tell whether text is an AT-URI of the restricted form (SX-14)."""
    if len(text) > MAX_AT_URI_LENGTH or not text.startswith("at://"):
        return False
    authority, *path = text[5:].split("/")
    if len(path) > 2 or not is_at_identifier(authority):
        return False
    if path and not is_nsid(path[0]):
        return False
    return len(path) < 2 or is_rkey(path[1])


def is_tid(text: str) -> bool:
    """Tell whether text has the syntax of a timestamp identifier (SX-12)."""
    return _TID.fullmatch(text) is not None


def tid_time_us(tid: str) -> int:
    """Return the microseconds since 1970 that a TID stands for (SX-13)."""
    number = 0
    for letter in tid:
        number = number << 5 | _TID_VALUE[letter]
    return number >> 10


def make_tid(time_us: int, clock_id: int) -> str:
    """Write a time and a clock's number (below 1024) as a TID, which sorts by time."""
    number = time_us << 10 | (clock_id & 0x3FF)
    return "".join(_TID_ALPHABET[number >> shift & 0x1F] for shift in range(60, -1, -5))


def is_datetime(text: str) -> bool:
    """Tell whether text is a datetime of the protocol, and a moment that exists (SX-15, SX-16)."""
    if len(text) > MAX_DATETIME_LENGTH:
        return False
    match = _DATETIME.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    # Year 0 is a leap year like 2000; the calendar module starts at year 1.
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year or 2000, month)[1]:
        return False
    if hour > 23 or minute > 59 or second > 59:
        return False
    sign, zone_hour, zone_minute = match.groups()[6:]
    if sign is None:
        return True
    if int(zone_hour) > 23 or int(zone_minute) > 59:
        return False
    offset_min = int(zone_hour) * 60 + int(zone_minute)
    if sign == "-":
        return offset_min > 0  # RFC 3339 says -00:00 for "zone unknown"
    return (year, month, day) > (0, 1, 1) or hour * 60 + minute >= offset_min
