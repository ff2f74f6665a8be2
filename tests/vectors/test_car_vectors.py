"""Real repository exports: walked, rebuilt, and cut."""

import io
from pathlib import Path

import pytest

from sync.atproto.car import read_car
from sync.atproto.commit import read_commit
from sync.atproto.export import Export, ExportLimits, read_export
from sync.errors import ExportError

_LIMITS = ExportLimits(max_bytes=10_000_000, max_blocks=100_000, max_records=100_000)
_FAR_FUTURE_US = 4_000_000_000_000_000


def export_of(data: bytes) -> Export:
    """Read an export unsigned: the keys of these accounts are not known."""
    car = read_car(data, max_blocks=100_000)
    did = read_commit(car.blocks[car.roots[0]]).did
    return read_export(io.BytesIO(data), did, None, now_us=_FAR_FUTURE_US, limits=_LIMITS)


@pytest.mark.rule("CA-10", "MS-19")
@pytest.mark.scenario("A-46")
@pytest.mark.parametrize(("name", "records"), [("empty", 0), ("tiny", 8), ("little", 278)])
def test_a_real_export_is_read_whole(vectors: Path, name: str, records: int) -> None:
    path = vectors / "cars" / f"{name}.car"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the vectors")
    data = path.read_bytes()
    result = export_of(data)
    assert len(result.leaves) == records
    assert not result.skipped
    assert all(result.read_block(leaf.cid) for leaf in result.leaves)
    with pytest.raises(ExportError):
        read_export(
            io.BytesIO(data[:-50]),
            result.commit.did,
            None,
            now_us=_FAR_FUTURE_US,
            limits=_LIMITS,
        )
