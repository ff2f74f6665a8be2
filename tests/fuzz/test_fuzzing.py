"""A minute of fuzzing, shared by all targets; `make fuzz` goes on for as long as one likes."""

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS
from tests.network.install import skip_loudly

MINUTE_S = 60
LEAST_RUNS = 500


@pytest.mark.rule("FA-14", "ES-19", "OP-10")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_share_of_a_minute_finds_no_broken_promise(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        skip_loudly("NOT FUZZED: there is no Atheris for this machine and this Python")
    turn = fuzz(target, MINUTE_S // len(TARGETS), tmp_path)
    assert turn.finding is None, f"{turn.finding.read_bytes()!r}\n{turn.text[-3000:]}"
    assert turn.runs > LEAST_RUNS, turn.text[-3000:]
