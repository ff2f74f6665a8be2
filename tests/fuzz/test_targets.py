"""Every promise holds for the kept corpus, and for what hypothesis makes of it."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import KEPT, MAX_TOTAL_BYTES, kept
from tests.fuzz.targets import TARGETS

EVERYTHING = [(target, path) for target in sorted(TARGETS) for path in kept(target)]
# Heads of CBOR and of varints, ends of ranges, and what stands in formats.
TELLING = [
    *(bytes((byte,)) for byte in b"\x00\x01\x17\x18\x5b\x7f\x80\x9b\xbb\xf6\xfb\xff"),
    *(b"\xd8\x2a", b"\xff" * 8, b"\x1b\x80" + bytes(7), b"\x81" * 70),
    *(b"$link", b"\0", b'"', b"\xc0\x80"),
]


@pytest.mark.rule("FA-14", "CB-19", "OP-10")
@pytest.mark.parametrize(
    ("target", "path"), EVERYTHING, ids=[f"{target}-{path.name}" for target, path in EVERYTHING]
)
def test_every_kept_input_keeps_the_promises(target: str, path: Path) -> None:
    data = path.read_bytes()
    started = time.process_time()
    TARGETS[target](data)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_corpus_has_inputs_that_are_taken_and_some_that_are_not(target: str) -> None:
    taken = [TARGETS[target](path.read_bytes()) for path in kept(target)]
    assert any(taken)
    assert not all(taken) or target == "car"


def test_the_corpus_stays_small() -> None:
    sizes = [path.stat().st_size for _, path in EVERYTHING]
    assert sum(sizes) < MAX_TOTAL_BYTES
    assert sorted(TARGETS) == sorted(path.name for path in KEPT.iterdir())


@st.composite
def altered(draw: st.DrawFn, target: str) -> bytes:
    """Draw a kept input with some pieces overwritten, cut, put in or repeated."""
    inputs = st.sampled_from(kept(target)).map(Path.read_bytes)
    data = draw(inputs)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 40)))
        piece = draw(st.binary(max_size=4) | st.sampled_from(TELLING) | inputs)
        cut = draw(st.sampled_from([at, min(at + len(piece), len(data)), end]))
        repeated = data[at:end] if draw(st.booleans()) else b""
        data = data[:at] + piece + repeated + data[cut:]
    return data


@pytest.mark.rule("FA-14", "CB-19", "MS-01", "CA-05", "DM-11")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_whatever_is_done_to_an_input_keeps_the_promises(target: str) -> None:
    @given(altered(target))
    @settings(max_examples=400)
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()
