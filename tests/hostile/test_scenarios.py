"""Every hostile scenario has a test that plays it."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
SCENARIOS = {f"A-{number:02}" for number in range(1, 58)}


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
    assert played == SCENARIOS


def test_a_marker_is_found_wherever_it_stands() -> None:
    source = """
import pytest
pytestmark = [pytest.mark.scenario("A-01")]
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.scenario("A-02", "A-03"))])
def test_it(x): ...
"""
    assert sorted(marked(source)) == ["A-01", "A-02", "A-03"]
