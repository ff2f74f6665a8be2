"""Records that no honest app writes: the bytes, and why they have no JSON (None: they have)."""

from typing import Any, NamedTuple

import cbor2

from sync.atproto import cbor
from sync.atproto.cid import cid_for, format_cid
from tests.integration.rig import NOTE

CID = cid_for(b"anything")
CBOR_NULL, CBOR_LINK = b"\xf6", b"\xd8\x2a"
TOO_BIG, NOT_CANONICAL, AMBIGUOUS = "too_big", "not_canonical", "ambiguous"


class Odd(NamedTuple):
    """One record; `reason` is what is stored beside its bytes."""

    name: str
    block: bytes
    reason: str | None = None


def value(**fields: Any) -> bytes:
    """Encode a record with some fields."""
    return cbor.encode({"$type": NOTE, **fields})


def raw(text: bytes) -> bytes:
    """Encode a record whose one field has these bytes of CBOR."""
    return b"\xa1\x61a" + text


def float_of(number: float) -> bytes:
    """Encode a record with a float, for which the data model has no place."""
    return raw(cbor2.dumps(number, canonical=False))


def sized(count: int) -> bytes:
    """Encode a record of exactly so many bytes, nearly all of them in one string."""
    padding = count - len(value(text="x" * 100_000)) + 100_000
    block = value(text="x" * padding)
    assert len(block) == count
    return block


TEXTS = (
    Odd("U+0000 in a value", value(text="a\0b"), "nul"),
    Odd("U+0000 in a key", value(**{"a\0b": 1}), "nul"),
    Odd("U+0000 in a type", cbor.encode({"$type": "com.example\0"}), "nul"),
    Odd("U+0000 in a map within a list", value(many=[{"deep": "\0"}]), "nul"),
    Odd("noncharacters", value(text="\ufffe\uffff\U0010ffff")),
    Odd("an escape that is spelled out", value(text="\\u0000")),
    Odd("a lone surrogate", raw(b"\x63\xed\xa0\x80"), NOT_CANONICAL),
    Odd("a lone surrogate in a key", b"\xa1\x63\xed\xa0\x80\x01", NOT_CANONICAL),
    Odd("an overlong U+0000", raw(b"\x62\xc0\x80"), NOT_CANONICAL),
    Odd("bytes that are no UTF-8", raw(b"\x61\xff"), NOT_CANONICAL),
)
NUMBERS = (
    Odd("2^53", value(n=2**53)),
    Odd("2^53 + 1", value(n=2**53 + 1)),
    Odd("2^63 - 1", value(n=2**63 - 1)),
    Odd("-2^63", value(n=-(2**63))),
    Odd("2^63", raw(b"\x1b\x80" + bytes(7)), "integer"),
    Odd("2^64 - 1", raw(b"\x1b" + b"\xff" * 8), "integer"),
    Odd("-2^63 - 1", raw(b"\x3b\x80" + bytes(7)), "integer"),
    Odd("-2^64", raw(b"\x3b" + b"\xff" * 8), "integer"),
    Odd("1.0", float_of(1.0), "float"),
    Odd("1.5", float_of(1.5), "float"),
    Odd("NaN", float_of(float("nan")), "float"),
    Odd("infinity", float_of(float("inf")), "float"),
    Odd("-0.0", float_of(-0.0), "float"),
    Odd("a half float", raw(b"\xf9\x3c\x00"), "float"),
    Odd("a bignum", raw(b"\xc2\x49\x01" + bytes(8)), NOT_CANONICAL),
)
SIZES = (
    Odd("999,999 bytes", sized(999_999)),
    Odd("1,000,000 bytes", sized(1_000_000)),
    Odd("1 MiB", sized(1_048_576)),
    Odd("1 MiB and a byte", sized(1_048_577), TOO_BIG),
    Odd("131,073 map entries", value(many={f"{n:05x}": 0 for n in range(131_073)})),
    Odd("10,000 empty maps", value(many=[{}] * 10_000)),
)
BOMBS = (
    Odd("an array of 2^64 - 1", raw(b"\x9b" + b"\xff" * 8), "not_cbor"),
    Odd("a map of 2^64 - 1", raw(b"\xbb" + b"\xff" * 8), "not_cbor"),
    Odd("a text of 2^64 - 1 bytes", raw(b"\x7b" + b"\xff" * 8), "not_cbor"),
    Odd("arrays that each claim the rest", raw(b"\x9a\x00\x01\x00\x00" * 50_000), "too_deep"),
    Odd("100,000 nested arrays", raw(b"\x81" * 100_000 + CBOR_NULL), "too_deep"),
    Odd("100,000 nested maps", raw(b"\xa1\x61a" * 100_000 + CBOR_NULL), "too_deep"),
    Odd("500,000 nested links", raw(CBOR_LINK * 500_000 + CBOR_NULL), NOT_CANONICAL),
    Odd("65 levels", value(deep=cbor2.loads(b"\x81" * 63 + CBOR_NULL))),
    Odd("66 levels", raw(b"\x81" * 65 + CBOR_NULL), "too_deep"),
    Odd("a key twice", b"\xa2\x61a\x01\x61a\x02", NOT_CANONICAL),
    Odd("keys out of order", b"\xa2\x61b\x01\x61a\x02", NOT_CANONICAL),
    Odd("an array without a length", raw(b"\x9f\x01\xff"), NOT_CANONICAL),
    Odd("a map without a length", b"\xbf\x61a\x01\xff", NOT_CANONICAL),
    Odd("a text in chunks", raw(b"\x7f\x61a\xff"), NOT_CANONICAL),
    Odd("an integer that is longer than it has to be", raw(b"\x18\x01"), NOT_CANONICAL),
    Odd("a length that is longer than it has to be", raw(b"\x78\x01x"), NOT_CANONICAL),
    Odd("another tag", raw(b"\xc1\x01"), NOT_CANONICAL),
    Odd("undefined", raw(b"\xf7"), NOT_CANONICAL),
    Odd("no map", b"\x83\x01\x02\x03", "not_a_map"),
    Odd("nothing", b"", "not_cbor"),
    Odd("two maps", b"\xa0\xa0", "not_cbor"),
    Odd("a map that is cut", b"\xa2\x61a\x01", "not_cbor"),
)
AMBIGUITIES = (
    Odd("$link with a number", value(a={"$link": 5}), AMBIGUOUS),
    Odd("$link with a text", value(a={"$link": format_cid(CID)}), AMBIGUOUS),
    Odd("$link beside others", value(a={"$link": format_cid(CID), "b": 1}), AMBIGUOUS),
    Odd("$bytes with a text", value(a={"$bytes": "AAAA"}), AMBIGUOUS),
    Odd("$bytes with a map", value(a=[{"$bytes": {}}]), AMBIGUOUS),
    Odd("a record that is a $link", cbor.encode({"$link": "a"}), AMBIGUOUS),
    Odd("$link as a value", value(a="$link", b=["$bytes"])),
    Odd("bytes that look like a CID", value(a=CID, b=b"\0" + CID)),
    Odd("a link beside the same bytes", value(a=cbor.Link(CID), b=CID)),
    Odd("empty bytes", value(a=b"")),
    Odd("a link of another codec", raw(CBOR_LINK + b"\x45\x00\x01\x70\x12\x00"), "bad_link"),
    Odd(
        "a blob whose size is a text",
        value(a={"$type": "blob", "ref": cbor.Link(CID), "mimeType": "image/png", "size": "5"}),
    ),
    Odd("a legacy blob", value(a={"cid": format_cid(CID), "mimeType": "image/png"})),
    Odd("an unknown $foo", value(**{"$foo": 1, "a": {"$type": "", "$": None}})),
    Odd("empty keys", value(**{"": {"": [""]}})),
    Odd("no type", cbor.encode({})),
    Odd("a type that is no text", cbor.encode({"$type": 7})),
)
