"""Every hostile scenario has a test that plays it."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
SCENARIOS = [f"A-{number:02}" for number in range(1, 58)]
# Those that nobody plays yet: these lists only get shorter.
OPEN_OF_PROTOCOL = """
    A-01 A-02 A-03 A-04 A-05 A-06 A-08 A-09 A-10 A-11 A-15
    A-21 A-22 A-23 A-25 A-26
"""
OPEN_OF_CONTENT_AND_ACCOUNTS = """
    A-29 A-30 A-31 A-32 A-33 A-34 A-35 A-36 A-37 A-47 A-48 A-49 A-50 A-51 A-52 A-53 A-54 A-55
    A-56 A-57
"""


def marked(source: str) -> Iterator[str]:
    """Yield the ids in every `pytest.mark.scenario(…)` of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.scenario":
            for argument in node.args:
                yield str(ast.literal_eval(argument))


def test_every_scenario_is_played() -> None:
    played = {
        scenario for path in TESTS.rglob("test_*.py") for scenario in marked(path.read_text())
    }
    assert played <= set(SCENARIOS)
    still_open = {*OPEN_OF_PROTOCOL.split(), *OPEN_OF_CONTENT_AND_ACCOUNTS.split()}
    assert set(SCENARIOS) - played == still_open


def test_a_marker_is_found_wherever_it_stands() -> None:
    source = """
import pytest
pytestmark = [pytest.mark.scenario("A-01")]
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.scenario("A-02", "A-03"))])
def test_it(x): ...
"""
    assert sorted(marked(source)) == ["A-01", "A-02", "A-03"]
