"""Reading envelopes: strict, linear, and the same whichever way is taken."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto import cbor
from sync.atproto.cbor import CborError, Link
from sync.atproto.cid import cid_for
from sync.atproto.envelope import read_item, read_objects, skip_item

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.binary(max_size=4).map(lambda data: Link(cid_for(data))),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=40), inner),
    max_leaves=20,
)


@pytest.mark.rule("ES-04", "CB-17")
@given(st.lists(values, max_size=3))
def test_reading_undoes_writing(objects: list[object]) -> None:
    data = b"".join(map(cbor.encode, objects))
    assert read_objects(data) == objects
    at = 0
    for value in objects:
        start = at
        read, at = read_item(data, start)
        assert read == value
        assert type(read) is type(value)
        assert skip_item(data, start) == at


@pytest.mark.rule(
    "CB-01",
    "CB-02",
    "CB-03",
    "CB-04",
    "CB-05",
    "CB-06",
    "CB-09",
    "CB-11",
    "CB-12",
    "CB-07",
    "CB-10",
    "CB-13",
    "CB-19",
)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x18\x01", id="integer not shortest"),
        pytest.param(b"\x58\x01a", id="length not shortest"),
        pytest.param(b"\x9f\xff", id="indefinite array"),
        pytest.param(b"\xff", id="break"),
        pytest.param(b"\xa1\x01\x02", id="integer key"),
        pytest.param(b"\xa2\x61b\x01\x61a\x01", id="unsorted keys"),
        pytest.param(b"\xa2\x62aa\x01\x61b\x01", id="longer key first"),
        pytest.param(b"\xa2\x61a\x01\x61a\x01", id="duplicate key"),
        pytest.param(b"\xc2\x42\x00\x01", id="bignum", marks=pytest.mark.rule("CB-10")),
        pytest.param(b"\xd8\x2b\x42\x00\x01", id="tag 43"),
        pytest.param(b"\xd9\x00\x2a\x42\x00\x01", id="tag 42 not shortest"),
        pytest.param(b"\xd8\x2a\x41\x00", id="link without a CID"),
        pytest.param(b"\xd8\x2a\x42\x01\x01", id="link without its zero"),
        pytest.param(b"\xd8\x2a\x61a", id="link of text"),
        pytest.param(b"\xd8\x2a\x82\x00\x01", id="link of an array"),
        pytest.param(b"\xd8\x2a\xd8\x2a\x43\x00\x00\x01", id="link of a link"),
        pytest.param(b"\xf7", id="undefined"),
        pytest.param(b"\xf8\x20", id="simple value"),
        pytest.param(b"\xfb" + bytes(8), id="float"),
        pytest.param(b"\x61\xff", id="not UTF-8"),
        pytest.param(b"\x63\xed\xa0\x80", id="surrogate"),
        pytest.param(b"\x42a", id="cut bytes"),
        pytest.param(b"\x62a", id="cut text"),
        pytest.param(b"\x19\x01", id="cut integer"),
        pytest.param(b"\x82\x01", id="cut array"),
        pytest.param(b"\x9b" + b"\xff" * 8, id="array of 2^64-1"),
        pytest.param(b"\x81" * 65 + b"\x01", id="65 levels of arrays"),
        pytest.param(b"\xa1\x61a" * 65 + b"\x01", id="65 levels of maps"),
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(CborError):
        read_objects(data)
    with pytest.raises(CborError):
        read_item(data, 0)


@pytest.mark.rule("CB-16")
@pytest.mark.parametrize(
    "data", [b"\x42a", b"\x62a", b"\x19\x01", b"\x82\x01", b"\x5b" + b"\xff" * 8]
)
def test_nothing_is_stepped_over_that_is_not_all_there(data: bytes) -> None:
    with pytest.raises(CborError):
        skip_item(data, 0)


@pytest.mark.rule("ES-19", "CB-15", "CB-16")
@pytest.mark.scenario("A-34")
@pytest.mark.parametrize("size", [64_000, 1_000_000])
@pytest.mark.parametrize(
    ("head", "levels"),
    [(b"\x9a\x00\x00\xff\xff", 13_000), (b"\x81", 60_000), (b"\xd8\x2a", 30_000)],
)
def test_a_bomb_is_refused_in_time_linear_in_its_size(head: bytes, levels: int, size: int) -> None:
    bomb = head * levels
    bomb += bytes(size - min(size, len(bomb)))
    started = time.process_time()
    with pytest.raises(CborError):
        read_objects(bomb)
    assert time.process_time() - started < 3


@pytest.mark.rule("FA-14")
@given(st.binary(max_size=100))
def test_random_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        objects = read_objects(data)
    except CborError:
        return
    for value in objects:
        assert isinstance(value, dict | list | str | bytes | int | bool | None)
