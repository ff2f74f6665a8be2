"""Files of any content are told apart by their beginning, and read without believing lengths."""

import io
import tracemalloc
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.atproto.frame import MAX_FRAME_BYTES
from sync.captures import Capture
from sync.errors import BadInput
from tests.unit.captures import write_capture, zstd
from tests.unit.repos import Change, some_records

FRAMES = [b"a", b"", b"c" * 70_000]
EXPORT = Change({}, some_records([1])).export()


class Pipe(io.BytesIO):
    """A stream that cannot be read twice, and hands out few bytes at a time."""

    def seekable(self) -> bool:
        return False

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7 if size is None or size < 0 else min(size, 7))


def opened(data: bytes) -> Capture:
    return Capture(io.BytesIO(data), "f")


def frames_in(data: bytes, order: Literal["big", "little"] = "big") -> list[bytes]:
    return [frame.data for frame in opened(data).frames(order)]


@pytest.mark.parametrize("order", ["big", "little"])
def test_frames_are_read_back_with_their_places(order: Literal["big", "little"]) -> None:
    found = list(opened(write_capture(FRAMES, order)).frames(order))
    assert [frame.data for frame in found] == FRAMES
    assert [frame[:3] for frame in found] == [(1, 0, 1), (2, 5, 0), (3, 9, 70_000)]


@pytest.mark.parametrize("data", [EXPORT, write_capture(FRAMES)])
def test_zstd_and_pipes_make_no_difference(data: bytes) -> None:
    half = len(data) // 2
    packed = zstd.compress(data)
    in_parts = (
        zstd.compress(data[:half])
        + b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"
        + zstd.compress(data[half:])
    )
    for raw in (data, packed, in_parts):
        for file in (io.BytesIO(raw), Pipe(raw)):
            capture = Capture(file, "f")
            assert capture.is_car == (data is EXPORT)
            with capture.seekable(max_bytes=1 << 20) as whole:
                whole.seek(0)
                assert whole.read() == data


def test_a_file_that_is_too_large_is_not_copied_whole() -> None:
    with opened(zstd.compress(EXPORT)).seekable(max_bytes=100) as whole:
        whole.seek(0)
        assert len(whole.read()) == 101


@pytest.mark.parametrize(
    ("data", "is_car"),
    [
        (EXPORT, True),
        (b"\x0a\xa1\x67version\x02", True),
        (b"\x11\xa2\x65roots\x80\x67version\x01", True),
        (b"\x3a\xa2\x00\x00" + bytes(41_530), False),
        (write_capture([b"\xa1\x62op\x20"]), False),
        (write_capture([b"\xa2\x61t\x67#commit\x62op\x01"], "little"), False),
        (b'{"roots": []}', False),
    ],
)
def test_a_car_is_known_by_its_header_even_where_that_is_wrong(data: bytes, is_car: bool) -> None:
    assert opened(data).is_car is is_car


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "f is empty."),
        (zstd.compress(b""), "f is empty."),
        (b"\x00", "f is cut short: it ends within frame 1, at byte 0."),
        (b"\x00\x00\x00\x02a", "f is cut short: it ends within frame 1, at byte 0."),
        (write_capture(FRAMES)[:-1], "f is cut short: it ends within frame 3, at byte 9."),
        (b"plain text", "f holds neither a CAR nor captured frames."),
        (b"\xff" * 99, "f holds neither a CAR nor captured frames."),
        (
            write_capture(FRAMES, "little"),
            "f holds neither a CAR nor captured frames: try --length-order little.",
        ),
        (
            write_capture(FRAMES) + b"\xff\xff\xff\xff",
            "f has no frame 4 of 4,294,967,295 bytes at byte 70,013.",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        frames_in(data)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "data", [zstd.compress(b"x" * 9_999)[:-1], b"\x28\xb5\x2f\xfd" + b"\xff" * 40]
)
def test_damaged_zstd_is_told_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BadInput, match="f is damaged, or no zstd file"):
        frames_in(data)


def test_a_window_of_gigabytes_is_refused() -> None:
    huge = b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"
    with pytest.raises(BadInput, match="f is damaged, or no zstd file"):
        frames_in(huge)


@pytest.mark.rule("ES-15", "ES-19")
def test_a_frame_over_the_limit_is_stepped_over_and_not_kept() -> None:
    size = 60_000_000
    data = size.to_bytes(4, "big") + bytes(size) + write_capture([b"x"])
    packed = zstd.compress(data)
    tracemalloc.start()
    try:
        found = list(opened(packed).frames("big"))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [frame[1:] for frame in found] == [(0, size, b""), (4 + size, 1, b"x")]
    assert peak_bytes < 2 * MAX_FRAME_BYTES


@pytest.mark.rule("FA-14")
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_sentence(data: bytes) -> None:
    for prefix in (b"", b"\x28\xb5\x2f\xfd", b"\x3a\xa2\x65roots"):
        try:
            list(opened(prefix + data).frames("big"))
        except BadInput:
            continue
