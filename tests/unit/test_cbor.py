"""Strict DAG-CBOR: one form for every value, and nothing that exhausts the machine."""

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.atproto import cbor
from sync.atproto.cbor import CborError, Link
from sync.atproto.cid import cid_for
from tests.unit.costs import cost_s

CID = cid_for(b"x")
LINK = "d82a582500" + CID.hex()

texts = st.text('ab\u00e9\u2028\ufffe\U0001f600\0\\"$;', max_size=6)
links = st.builds(lambda block: Link(cid_for(block)), st.binary(max_size=4))
leaves = (
    st.none()
    | st.booleans()
    | st.integers(cbor.MIN_INTEGER, cbor.MAX_INTEGER)
    | texts
    | st.binary(max_size=8)
    | links
    | st.just(CID)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def reason(data: bytes) -> str:
    with pytest.raises(CborError) as caught:
        cbor.decode(data)
    return caught.value.reason


def refused_fast(data: bytes) -> None:
    with pytest.raises(CborError):
        cbor.decode_fast(data)


def with_tags(value: Any) -> Any:
    """Return the value as the second codec spells it."""
    if isinstance(value, Link):
        return cbor2.CBORTag(42, b"\0" + value)
    if isinstance(value, list):
        return [with_tags(item) for item in value]
    if isinstance(value, dict):
        return {key: with_tags(item) for key, item in value.items()}
    return value


@pytest.mark.rule("CB-19")
@given(values)
@settings(max_examples=60, deadline=None)
def test_values_go_round_and_two_codecs_write_the_same_bytes(value: Any) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data) == value
    assert cbor.encode(cbor.decode(data)) == data
    assert cbor2.dumps(with_tags(value), canonical=True) == data


@pytest.mark.rule("CB-17")
def test_links_and_byte_strings_stay_apart() -> None:
    value = cbor.decode(cbor.encode({"link": Link(CID), "bytes": CID}))
    assert type(value["link"]) is Link
    assert type(value["bytes"]) is bytes
    assert value["link"] == value["bytes"] == CID
    assert repr(Link(b"\x01")) == "Link(01)"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param("1801", "not_canonical", marks=pytest.mark.rule("CB-01"), id="long integer"),
        pytest.param("780161", "not_canonical", marks=pytest.mark.rule("CB-01"), id="long length"),
        pytest.param("9f01ff", "not_canonical", marks=pytest.mark.rule("CB-02"), id="open array"),
        pytest.param("bfff", "not_canonical", marks=pytest.mark.rule("CB-02"), id="open map"),
        pytest.param("5f4101ff", "not_canonical", marks=pytest.mark.rule("CB-02"), id="open bytes"),
        pytest.param("a10101", "not_canonical", marks=pytest.mark.rule("CB-03"), id="integer key"),
        pytest.param("a1410101", "not_canonical", marks=pytest.mark.rule("CB-03"), id="bytes key"),
        pytest.param(
            "a2616201616102", "not_canonical", marks=pytest.mark.rule("CB-04"), id="order"
        ),
        pytest.param(
            "a262616101616202", "not_canonical", marks=pytest.mark.rule("CB-04"), id="len"
        ),
        pytest.param(
            "a2616101616102", "not_canonical", marks=pytest.mark.rule("CB-05"), id="twice"
        ),
        pytest.param("c24101", "not_canonical", marks=pytest.mark.rule("CB-10"), id="bignum"),
        pytest.param("d82b4100", "not_canonical", marks=pytest.mark.rule("CB-06"), id="other tag"),
        pytest.param(
            "d82a6100", "not_canonical", marks=pytest.mark.rule("CB-06"), id="text in tag"
        ),
        pytest.param("d82a40", "not_canonical", marks=pytest.mark.rule("CB-06"), id="empty tag"),
        pytest.param("d82a4101", "not_canonical", marks=pytest.mark.rule("CB-06"), id="no zero"),
        pytest.param(
            "d9002a" + LINK[4:], "not_canonical", marks=pytest.mark.rule("CB-07"), id="tag"
        ),
        pytest.param("d82a4100", "bad_link", marks=pytest.mark.rule("CB-08"), id="empty CID"),
        pytest.param(LINK.replace("0171", "0170"), "bad_link", id="dag-pb"),
        pytest.param(LINK.replace("1220", "1120", 1), "bad_link", id="other hash"),
        pytest.param("d82a5823001220" + "00" * 32, "bad_link", id="version 0"),
        pytest.param("f7", "not_canonical", marks=pytest.mark.rule("CB-09"), id="undefined"),
        pytest.param("f8ff", "not_canonical", marks=pytest.mark.rule("CB-09"), id="simple value"),
        pytest.param("62c080", "not_canonical", marks=pytest.mark.rule("CB-11"), id="overlong"),
        pytest.param("63eda080", "not_canonical", marks=pytest.mark.rule("CB-11"), id="surrogate"),
        pytest.param("fb3ff8000000000000", "float", marks=pytest.mark.rule("CB-12"), id="1.5"),
        pytest.param("fb8000000000000000", "float", marks=pytest.mark.rule("CB-13"), id="-0.0"),
        pytest.param("fb7ff8000000000000", "float", marks=pytest.mark.rule("CB-13"), id="NaN"),
        pytest.param("f93c00", "float", marks=pytest.mark.rule("CB-13"), id="half float"),
        pytest.param("fa3f800000", "float", marks=pytest.mark.rule("CB-13"), id="single float"),
        pytest.param("8080", "not_cbor", marks=pytest.mark.rule("CB-14"), id="two objects"),
        pytest.param("", "not_cbor", id="nothing"),
        pytest.param("6261", "not_cbor", marks=pytest.mark.rule("CB-16"), id="cut text"),
        pytest.param("1b00", "not_cbor", marks=pytest.mark.rule("CB-16"), id="cut integer"),
        pytest.param("9bffffffffffffffff", "not_cbor", marks=pytest.mark.rule("CB-16"), id="2^64"),
        pytest.param("1b8000000000000000", "integer", marks=pytest.mark.rule("RC-11"), id="2^63"),
        pytest.param("3bffffffffffffffff", "integer", marks=pytest.mark.rule("RC-11"), id="-2^64"),
        pytest.param("1c", "not_canonical", id="reserved length"),
    ],
)
def test_every_other_form_is_refused_with_its_reason(data: str, why: str) -> None:
    assert reason(bytes.fromhex(data)) == why


@pytest.mark.rule("RC-11")
def test_integers_reach_to_the_ends_of_64_bits() -> None:
    for number in (cbor.MAX_INTEGER, cbor.MIN_INTEGER):
        assert cbor.decode(cbor.encode(number)) == number


@pytest.mark.rule("CB-15")
@pytest.mark.rule("D-01")
@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x60"])
def test_64_levels_are_allowed_and_65_are_not(head: bytes) -> None:
    end = b"\x80" if head == b"\x81" else b"\xa0"
    deepest = head * (cbor.MAX_DEPTH - 1)
    assert cbor.encode(cbor.decode(deepest + end)) == deepest + end
    cbor.check_depth(deepest + end, cbor.MAX_DEPTH)
    assert cbor.encode(cbor.decode(deepest + head + b"\x00")) == deepest + head + b"\x00"
    assert reason(deepest + head + end) == "too_deep"
    with pytest.raises(CborError, match="too_deep"):
        cbor.check_depth(deepest + head + end, cbor.MAX_DEPTH)


@pytest.mark.rule("CB-15")
def test_a_hundred_thousand_levels_are_refused_without_recursion() -> None:
    assert reason(b"\x81" * 100_000 + b"\x80") == "too_deep"
    assert reason(b"\xd8\x2a" * 100_000 + b"\x41\x00") == "not_canonical"
    with pytest.raises(CborError):
        cbor.decode_fast(b"\x81" * 100_000 + b"\x80")
    with pytest.raises(CborError):
        cbor.decode_fast(b"\x81" * 4_000 + b"\x80")


@pytest.mark.rule("CB-16")
@pytest.mark.rule("ES-19")
@pytest.mark.parametrize("size", [501, 1_500, 4_002, 16_002, 65_001])
def test_nested_arrays_that_each_claim_the_rest_cost_nothing(size: int) -> None:
    # Exactly the rest: a codec refuses at once what claims one item more.
    bomb = b"".join(b"\x99" + (size - at - 3).to_bytes(2, "big") for at in range(0, size, 3))
    assert cost_s(lambda: reason(bomb)) < 0.2
    if size > 4_096:
        assert cost_s(lambda: refused_fast(bomb)) < 0.2


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_either_canonical_or_refused(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except CborError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize("value", [1.0, 2**63, {1: 2}, (1,), bytearray(b"x"), "\ud800", Link(b"x")])
def test_values_outside_the_data_model_are_not_written(value: object) -> None:
    with pytest.raises(CborError):
        cbor.encode({"a": [value]})


@given(values)
@settings(max_examples=30, deadline=None)
def test_the_fast_decoder_agrees_on_canonical_bytes(value: Any) -> None:
    assert cbor.decode_fast(cbor.encode(value)) == value


def test_the_fast_encoder_writes_the_same_node() -> None:
    node = {"l": None, "e": [{"p": 0, "k": b"a", "v": Link(CID), "t": None}]}
    assert cbor.encode_fast(node) == cbor.encode(node)
