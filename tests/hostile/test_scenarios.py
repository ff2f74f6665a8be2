"""Every hostile scenario has a test that plays it to a running service."""

from pathlib import Path

from tests.conformance.markers import all_marks
from tests.conformance.rules import SCENARIOS

TESTS = Path(__file__).parent.parent
# Where the whole service runs; a test of a part of it may be marked as well.
WHOLE = ("acceptance/", "hostile/", "integration/")


def test_every_scenario_is_played() -> None:
    marks = all_marks(TESTS, "scenario")
    assert {name for _, name in marks} <= SCENARIOS
    assert {name for file, name in marks if file.startswith(WHOLE)} == SCENARIOS
