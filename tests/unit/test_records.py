"""Records: JSON only where it loses nothing, and back to the same bytes by two codecs."""

import json
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.atproto import cbor, records
from sync.atproto.cbor import CborError, Link
from sync.atproto.cid import cid_for, format_cid
from tests.unit.costs import cost_s

CID = cid_for(b"x")
BLOB_CID = cid_for(b"x", codec=0x55)
LINK_HEAD = b"\xd8\x2a\x58\x25\x00"

# Pieces that look like something else: escapes, reserved keys, heads of links and integers.
TRAPS = [
    "",
    "a",
    "\0",
    "\\u0000",
    "\\\\u0000",
    "$link",
    "$bytes",
    "$type",
    ";é",
    "\x1bé",
    '"',
    "}{[",
]
BYTE_TRAPS = [b"", b"\xd8\x2a", LINK_HEAD + CID, LINK_HEAD, b"\x1b\xff", b"\x3b\x80", b"$link", CID]

texts = st.lists(st.sampled_from([*TRAPS, "\u2028", "\ufffe", "😀"]), max_size=3).map("".join)
byte_strings = st.lists(st.sampled_from(BYTE_TRAPS), max_size=3).map(b"".join)
links = st.sampled_from([Link(CID), Link(BLOB_CID), Link(b""), Link(b"\x12\x20" + bytes(32))])
edges = st.sampled_from(
    [2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), -(2**63) - 1, -(2**64)]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | edges
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0**70])
    | texts
    | byte_strings
    | links
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(texts, anything, max_size=4)


def flaws(value: Any) -> set[str]:
    """Tell independently what keeps a value from being stored as JSON."""
    if isinstance(value, float):
        return {"float"}
    if isinstance(value, str):
        return {"nul"} if "\0" in value else set()
    if isinstance(value, int):
        return set() if -(2**63) <= value < 2**63 else {"integer"}
    if isinstance(value, Link):
        return set() if value in (CID, BLOB_CID) else {"bad_link"}
    if isinstance(value, list):
        return set().union(*map(flaws, value))
    if isinstance(value, dict):
        ambiguous = {"ambiguous"} if {"$link", "$bytes"} & value.keys() else set()
        return ambiguous.union(*map(flaws, value), *map(flaws, value.values()))
    return set()


def raw_block(value: Any) -> bytes:
    """Encode what our own encoder would refuse to write."""

    def tagged(item: Any) -> Any:
        if isinstance(item, Link):
            return cbor2.CBORTag(42, b"\0" + item)
        if isinstance(item, list):
            return [tagged(inner) for inner in item]
        if isinstance(item, dict):
            return {key: tagged(inner) for key, inner in item.items()}
        return item

    return bytes(cbor2.dumps(tagged(value), canonical=True))


def as_jsonb(text: str) -> Any:
    """Return the value as it comes back from jsonb: other key order, nothing else changed."""
    return json.loads(json.dumps(json.loads(text), sort_keys=True))


@pytest.mark.rule("DM-11")
@pytest.mark.rule("D-10", "RC-12", "DM-10")
@given(maps)
@example({"a": [{"$link": format_cid(CID)}]})
@example({"$bytes": "AA"})
@example({"a": "\0"})
@example({"a": [2**63], "b": -(2**63) - 1})
@example({"a": Link(b"\x12\x20" + bytes(32))})
@example({"a": {"b": [1.0]}})
@settings(max_examples=100, deadline=None)
def test_a_record_goes_round_or_says_why_not(value: dict[str, Any]) -> None:
    block = raw_block(value)
    found = records.read_record(block)
    if flaws(value):
        assert found.value is None
        assert found.raw == block
        assert found.reason in flaws(value)
    else:
        assert (found.raw, found.reason) == (None, None)
        stored = as_jsonb(found.value or "")
        assert records.json_to_block(stored) == block
        assert records.second_codec_block(stored) == block


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_bytes_get_a_verdict(block: bytes) -> None:
    found = records.read_record(block)
    assert (found.value is None) == (found.reason is not None)
    assert found.raw == (block if found.value is None else None)


def reason(value: object) -> str | None:
    return records.read_record(value if isinstance(value, bytes) else raw_block(value)).reason


@pytest.mark.rule("D-10", "RC-12", "FA-10", "CB-19")
@pytest.mark.parametrize(
    ("block", "why"),
    [
        pytest.param(b"", "not_cbor", id="nothing"),
        pytest.param(b"\xa1\x61", "not_cbor", id="cut"),
        pytest.param(b"\xa0\xa0", "not_cbor", id="two objects"),
        pytest.param(b"\x80", "not_a_map", marks=pytest.mark.rule("RC-06"), id="array"),
        pytest.param(b"\x61a", "not_a_map", id="text"),
        pytest.param(b"\x41a", "not_a_map", id="bytes, a map in JSON"),
        pytest.param(LINK_HEAD + CID, "not_a_map", id="link, a map in JSON"),
        pytest.param(b"\xa1\x61a\x18\x01", "not_canonical", id="long integer"),
        pytest.param(b"\xa2\x61b\x01\x61a\x01", "not_canonical", id="key order"),
        pytest.param(b"\xa1\x61a\x62\xc0\x80", "not_canonical", id="overlong NUL"),
        pytest.param(b"\xa1\x61a\x63\xed\xa0\x80", "not_canonical", id="surrogate"),
        pytest.param(b"\xa1\x61a\xf9\x3c\x00", "float", marks=pytest.mark.rule("RC-10"), id="half"),
        pytest.param(b"\xa1\x61a\xfb\x3f\xf0" + bytes(6), "float", id="1.0"),
        pytest.param(b"\xa1\x61a\xfb\x80" + bytes(7), "float", id="-0.0"),
        pytest.param(b"\xa1\x61a\xfb\x7f\xf8" + bytes(6), "float", id="NaN"),
        pytest.param(b"\xa1\x61a" + b"\x81" * 100_000 + b"\x80", "too_deep", id="100,000 levels"),
        pytest.param(b"\xa1\x61a" + b"\x81" * 9_000 + b"\x80", "too_deep", id="9,000 levels"),
    ],
)
def test_blocks_that_are_no_records_keep_their_bytes(block: bytes, why: str) -> None:
    assert records.read_record(block) == (None, block, why)


@pytest.mark.rule("DM-12", "DM-14")
def test_text_is_kept_letter_by_letter() -> None:
    texts = [
        " \u212b A\u030a \u00c5\t",
        "2026-01-01T00:00:00.000000000+00:00",
        "\ufeff",
        "\u2028 /",
    ]
    value = {"a": texts, " b ": {"\u212b": "", "A\u030a": ""}}
    assert json.loads(records.read_record(raw_block(value)).value or "") == value


@pytest.mark.rule("DM-07", "DM-01", "DM-13")
@pytest.mark.parametrize("key", ["$link", "$bytes"])
def test_a_map_that_json_would_misread_is_ambiguous(key: str) -> None:
    inners: list[Any] = [1, "x", format_cid(CID), "AA", None, {}]
    for inner in inners:
        assert reason({"a": {key: inner}}) == "ambiguous"
        assert reason({"a": [{key: inner, "other": 1}]}) == "ambiguous"
    assert reason({key: "AA"}) == "ambiguous"
    assert reason({"a": key, key + "s": 1, "$unknown": {}}) is None


@pytest.mark.rule("OP-04")
@pytest.mark.rule("DM-12")
def test_nul_is_found_in_values_and_keys_and_not_in_escapes() -> None:
    values: list[Any] = [{"a": "\0"}, {"\0": 1}, {"a": [{"b\0": []}]}, {"$type": "a.b.c\0"}]
    for value in values:
        assert reason(value) == "nul"
    for text in ("\\u0000", "\\\\u0000", "u0000", "\\", "\x01\u0010"):
        assert reason({"a": text, text: 1}) is None


@pytest.mark.rule("DM-12", "DM-14")
@pytest.mark.parametrize(
    "text",
    [
        "1985-04-12T23:20:50.123456789+01:30", "0001-01-01T00:00:00Z", "2024-02-30T24:61:61-00:00",
        "yesterday", " x\t\r\n ", "e\u0301 \u00e9 \ufb01 \u202e", "</script>\\u0041&amp;\x7f",
    ],
)  # fmt: skip
def test_no_text_is_changed_be_it_a_time_or_not(text: str) -> None:
    value = {"createdAt": text, text: [text]}
    found = records.read_record(raw_block(value))
    assert json.loads(found.value or "") == value
    assert records.json_to_block(as_jsonb(found.value or "")) == raw_block(value)


@pytest.mark.rule("RC-11")
@pytest.mark.rule("DM-09", "OP-08")
def test_integers_keep_every_digit_up_to_int64() -> None:
    for number in (2**53 + 1, 2**63 - 1, -(2**63)):
        assert records.read_record(raw_block({"a": number})).value == f'{{"a":{number}}}'
    for number in (2**63, 2**64 - 1, -(2**63) - 1, -(2**64)):
        assert reason({"a": number}) == "integer"


@pytest.mark.rule("CB-18")
@pytest.mark.rule("DM-06")
@pytest.mark.rule("DM-13")
def test_odd_keys_that_json_can_hold_are_kept() -> None:
    value = {"": 0, "$foo": {"": None}, "null": None, "cid": "$link", "mimeType": "image/png"}
    found = records.read_record(raw_block(value))
    assert json.loads(found.value or "") == value


@pytest.mark.rule("CB-17", "DM-01", "DM-02")
def test_a_byte_string_that_looks_like_a_cid_stays_a_byte_string() -> None:
    found = records.read_record(raw_block({"bytes": CID, "link": Link(CID)}))
    stored = json.loads(found.value or "")
    assert stored["bytes"].keys() == {"$bytes"}
    assert stored["link"] == {"$link": format_cid(CID)}
    assert records.second_codec_block(stored) == raw_block({"bytes": CID, "link": Link(CID)})


@pytest.mark.rule("CB-08")
def test_a_malformed_link_cannot_hide_beside_bytes_that_look_like_a_good_one() -> None:
    bad = Link(b"\x01\x70\x12\x20" + bytes(32))
    assert reason({"a": bad, "b": LINK_HEAD + CID}) == "bad_link"
    assert reason({"a": LINK_HEAD, "b": LINK_HEAD + CID}) is None


@pytest.mark.rule("CM-05")
@pytest.mark.rule("D-01", "RC-01", "RC-05")
def test_a_record_may_have_1_mib_and_no_more() -> None:
    filler = "x" * (records.MAX_RECORD_BYTES - len(raw_block({"a": "x" * 70_000})) + 70_000)
    block = raw_block({"a": filler})
    assert len(block) == records.MAX_RECORD_BYTES
    assert reason(block) is None
    assert records.read_record(block + b"x") == (None, None, "too_big")


@pytest.mark.rule("CB-15")
def test_64_levels_are_kept_and_a_link_is_no_level() -> None:
    deep: Any = {"a": Link(CID), "b": b"x"}
    for _ in range(cbor.MAX_DEPTH - 1):
        deep = {"a": deep}
    found = records.read_record(raw_block(deep))
    assert found.reason is None
    assert records.json_to_block(json.loads(found.value or "")) == raw_block(deep)
    assert reason({"a": deep}) == "too_deep"
    with pytest.raises(CborError, match="too_deep"):
        records.json_to_block({"a": json.loads(found.value or "")})
    with pytest.raises(CborError, match="too_deep"):
        records.json_to_block([[json.loads(found.value or "")]])


@pytest.mark.rule("CB-16")
def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    size = 30_000
    claims = [b"\x99" + (size - at - 3).to_bytes(2, "big") for at in range(0, size, 3)]
    bomb = b"\xa1\x61a" + b"".join(claims)
    assert reason(bomb) == "too_deep"
    assert cost_s(lambda: reason(bomb)) < 0.2


def test_a_wide_record_with_many_maps_and_links_is_kept() -> None:
    value = {"a": [{"l": [Link(CID)], "b": [b"x"]}] * 500}
    found = records.read_record(raw_block(value))
    assert records.json_to_block(json.loads(found.value or "")) == raw_block(value)


@pytest.mark.rule("DM-02")
@pytest.mark.rule("DM-08")
def test_json_input_may_pad_base64_and_write_123_as_a_fraction() -> None:
    assert records.json_to_block({"a": {"$bytes": "AA=="}}) == raw_block({"a": b"\0"})
    assert records.json_to_block({"a": {"$bytes": "AA"}}) == raw_block({"a": b"\0"})
    assert records.json_to_block({"a": 123.0}) == raw_block({"a": 123})


@pytest.mark.rule("DM-01", "DM-02", "DM-08", "OP-09")
@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.5},
        {"a": float("inf")},
        {"a": 1e300},
        {"a": 2**63},
        {"a": {"$link": "x"}},
        {"a": {"$link": format_cid(CID).upper()}},
        {"a": {"$link": 3}},
        {"a": {"$bytes": "A-_A"}},
        {"a": {"$bytes": "A"}},
        {"a": {"$bytes": "é"}},
        {"a": {"$bytes": "AA", "b": 1}},
        {"a": "\ud800"},
        {"a": object()},
    ],
)
def test_json_that_stands_for_no_record_is_refused(value: object) -> None:
    with pytest.raises(CborError):
        records.json_to_block(value)


@pytest.mark.parametrize(
    "value", [{"a": 1.0}, {"a": object()}, {"a": {"$link": "x1"}}, {"$link": 1}]
)
def test_the_second_codec_refuses_what_was_never_stored(value: object) -> None:
    with pytest.raises(CborError):
        records.second_codec_block(value)


def test_the_second_codec_knows_one_spelling_of_a_record() -> None:
    link = format_cid(CID)
    assert records.second_codec_block({"a": {"$link": link}, "b": {"$bytes": "AQI"}})
    for odd in (
        {"$link": link, "more": 1},
        {"$link": link.upper()},
        {"$link": "z" + link[1:]},
        {"$bytes": "AQI", "more": 1},
        {"$bytes": "AQI="},
        {"$bytes": "A!QI"},
        {"$bytes": "AQJ"},
        {"$bytes": "AQI", "$link": link},
    ):
        with pytest.raises(CborError):
            records.second_codec_block({"a": odd})


@pytest.mark.rule("RC-07")
@pytest.mark.parametrize("kind", ["", None, 1, {}])
def test_a_type_that_is_no_text_is_kept_and_a_writer_must_not_publish_it(kind: object) -> None:
    value = {"$type": kind, "inner": {"$type": "com.example.note"}}
    with pytest.raises(CborError, match="bad_type"):
        records.check_data_model(value)
    with pytest.raises(CborError, match="bad_type"):
        records.check_data_model({"$type": "com.example.note", "inner": value})
    assert json.loads(records.read_record(raw_block(value)).value or "") == value


@pytest.mark.rule("DM-04")
@pytest.mark.rule("DM-05", "RC-09")
def test_ingest_keeps_malformed_blobs_that_a_writer_must_not_publish() -> None:
    good = {"$type": "blob", "ref": {"$link": format_cid(BLOB_CID)}, "mimeType": "a/b", "size": 0}
    records.check_data_model({"legacy": {"cid": "x", "mimeType": "a/b"}, "blobs": [good]})
    for change in (
        {"size": -1},
        {"size": True},
        {"mimeType": ""},
        {"ref": format_cid(BLOB_CID)},
        {"ref": {"$link": format_cid(CID)}},
        {"ref": None},
    ):
        bad = {"a": [good | change]}
        with pytest.raises(CborError, match="bad_blob"):
            records.check_data_model(bad)
        found = records.read_record(records.json_to_block(bad))
        assert json.loads(found.value or "") == bad
