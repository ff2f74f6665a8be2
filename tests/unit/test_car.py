"""CAR files: every block hashed, any order, extras stepped over, nothing cut taken for whole."""

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto import cbor
from sync.atproto.car import CarError, CarReader, read_car, write_car
from sync.atproto.cid import cid_for
from sync.errors import ProtocolError
from tests.unit.repos import section

BLOCKS = [(cid_for(block), block) for block in (b"\xa0", b"\x80", b"\x01" * 3_000_000)]
ROOT = BLOCKS[0][0]
CAR = write_car(ROOT, BLOCKS)

Read = Callable[[bytes], tuple[tuple[bytes, ...], dict[bytes, bytes]]]


def read_memory(
    data: bytes, *, max_blocks: int = 100
) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
    car = read_car(data, max_blocks=max_blocks)
    return car.roots, car.blocks


def read_file(
    data: bytes, *, max_blocks: int = 100
) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
    reader = CarReader(io.BytesIO(data), max_bytes=10_000_000, max_blocks=max_blocks)
    places = list(reader)
    return reader.roots, {cid: data[at : at + size] for cid, at, size in places}


both = pytest.mark.parametrize("read", [read_memory, read_file])


def header(**fields: object) -> bytes:
    return section(cbor.encode({"roots": [cbor.Link(ROOT)], "version": 1, **fields}))


@both
@pytest.mark.rule("CA-01", "CA-07")
def test_reading_undoes_writing_in_any_order(read: Read) -> None:
    for blocks in (BLOCKS, BLOCKS[::-1]):
        assert read(write_car(ROOT, blocks)) == ((ROOT,), dict(BLOCKS))


@both
@pytest.mark.rule("CA-08", "CA-09", "CA-16")
@pytest.mark.scenario("A-39")
def test_duplicates_and_foreign_blocks_do_no_harm(read: Read) -> None:
    foreign = [
        (cid_for(b"raw", codec=0x55), b"raw"),
        (b"\x12\x20" + bytes(32), b"version 0, any bytes"),
        (b"\x01\x71\x13\x40" + bytes(64), b"sha2-512"),
        (b"\x01\x71\x00\x03abc", b""),
        (b"\x01\x70\x12\x20" + bytes(32), b"dag-pb, not checked"),
        (cid_for(b"not CBOR: \xff"), b"not CBOR: \xff"),
    ]
    roots, blocks = read(write_car(ROOT, [*foreign, *BLOCKS, *BLOCKS, *foreign]))
    assert roots == (ROOT,)
    assert blocks == dict([*BLOCKS, foreign[-1]])


@both
@pytest.mark.rule("CA-06")
@pytest.mark.scenario("A-38")
@pytest.mark.parametrize("codec", [0x71, 0x55])
def test_a_block_that_is_not_what_its_cid_says_is_refused(read: Read, codec: int) -> None:
    for size in (1, 3_000_000):
        lie = (cid_for(bytes(size), codec=codec), b"\x01" * size)
        with pytest.raises(CarError, match="hash_mismatch"):
            read(write_car(ROOT, [*BLOCKS, lie]))


@both
@pytest.mark.rule("CA-03")
@pytest.mark.scenario("A-17")
def test_extra_roots_are_kept_and_the_first_is_first(read: Read) -> None:
    other = BLOCKS[1][0]
    roots, _ = read(header(roots=[cbor.Link(ROOT), cbor.Link(other)]))
    assert roots == (ROOT, other)


@both
@pytest.mark.rule("CA-01", "CA-02", "CA-03", "CA-04", "CA-05", "CA-16", "CA-17")
@pytest.mark.scenario("A-41")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "car_cut", id="empty file"),
        pytest.param(b"<!DOCTYPE html><html>", "car_cut", id="HTML"),
        pytest.param(header(version=2), "bad_car_header", id="version 2"),
        pytest.param(header(version=True), "bad_car_header", id="version true"),
        pytest.param(header(roots=[]), "bad_car_header", id="no roots"),
        pytest.param(header(roots=["x"]), "bad_car_header", id="root is text"),
        pytest.param(section(cbor.encode([])), "bad_car_header", id="no map"),
        pytest.param(section(header()[1:] + b"\x00"), "bad_car_header", id="header too long"),
        pytest.param(section(b"\xff"), "bad_car_header", id="no CBOR"),
        pytest.param(b"\x00", "bad_car_header", id="no header"),
        pytest.param(b"\x80\x80\x80\x80\x04", "bad_car_header", id="header of 1 GB"),
        pytest.param(b"\xff" * 10, "bad_varint", id="header length overflows"),
        pytest.param(header() + b"\xff" * 10, "bad_varint", id="length overflows"),
        pytest.param(header() + b"\x80", "car_cut", id="cut in a length"),
        pytest.param(header() + b"\x00", "car_cut", id="section without a CID"),
        pytest.param(header() + section(b"\x02" * 40), "bad_cid", id="no CID"),
        pytest.param(header() + section(ROOT[:35]), "bad_cid", id="cut CID"),
        pytest.param(header() + b"\xff\xff\xff\xff\x0f" + ROOT, "car_cut", id="section of 4 GB"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused(read: Read, data: bytes, reason: str) -> None:
    with pytest.raises(CarError) as caught:
        read(data)
    assert caught.value.reason == reason


@both
@pytest.mark.rule("CA-05")
@pytest.mark.scenario("A-40")
def test_a_file_cut_anywhere_but_between_blocks_is_refused(read: Read) -> None:
    car = write_car(ROOT, BLOCKS[:2])
    whole = {len(write_car(ROOT, BLOCKS[:count])) for count in range(3)}
    for size in range(len(car)):
        if size not in whole:
            with pytest.raises(CarError):
                read(car[:size])


@pytest.mark.rule("CA-14")
@pytest.mark.scenario("A-39")
def test_the_number_of_blocks_and_bytes_is_limited() -> None:
    assert len(read_memory(CAR, max_blocks=3)[1]) == 3
    for read in (read_memory, read_file):
        with pytest.raises(CarError, match="too_many_blocks"):
            read(CAR, max_blocks=2)
    with pytest.raises(CarError, match="car_too_big"):
        list(CarReader(io.BytesIO(CAR), max_bytes=len(CAR) - 1, max_blocks=9))
    assert len(list(CarReader(io.BytesIO(CAR), max_bytes=len(CAR), max_blocks=9))) == 3


@pytest.mark.rule("D-03")
def test_what_was_read_before_a_flaw_is_handed_over() -> None:
    with pytest.raises(CarError) as caught:
        read_car(CAR[:-1], max_blocks=9)
    partial = caught.value.partial
    assert partial is not None
    assert partial.blocks == dict(BLOCKS[:2])


@pytest.mark.rule("FA-14")
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_never_crash_the_readers(data: bytes, behind_a_header: bool) -> None:
    data = header() + data if behind_a_header else data
    outcomes: list[object] = []
    for read in (read_memory, read_file):
        try:
            outcomes.append(read(data))
        except ProtocolError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
