"""Find the official test vectors, which are not copied into this repository."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Return the folder that holds `atproto-interop-tests`, or skip."""
    folder = Path(os.environ.get("ATPROTO_VECTORS") or _BESIDE_THE_CHECKOUT)
    if not (folder / "atproto-interop-tests").is_dir():
        pytest.skip(
            "no test vectors: set ATPROTO_VECTORS to a folder with a checkout of "
            "bluesky-social/atproto-interop-tests in it"
        )
    return folder


@pytest.fixture(scope="session")
def interop(vectors: Path) -> Path:
    """Return the folder of the official interop files."""
    return vectors / "atproto-interop-tests"


@pytest.fixture(scope="session")
def cases(interop: Path) -> Callable[[str], list[str]]:
    """Return a reader of the syntax files: a case a line, spaces included, no comments."""

    def read(name: str) -> list[str]:
        lines = (interop / "syntax" / name).read_text(encoding="utf-8").split("\n")
        return [line for line in lines if line and not line.startswith("#")]

    return read
