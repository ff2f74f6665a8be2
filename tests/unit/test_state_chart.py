"""The page on repo states says what the SQL does: the chart, and who makes each transition."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "state-machine.md").read_text(encoding="utf-8")
FILES = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("sql/**/*.sql")}
STATES = {"pending", "fetching", "synchronized", "desynchronized", "failed"}

Move = tuple[str, str]


def guarded_moves() -> set[Move]:
    """Read the transitions that the trigger lets pass."""
    cases = re.search(r"case old\.sync_state(.*?)end\)", FILES["guard_repo"], re.DOTALL)
    assert cases is not None
    moves: set[Move] = set()
    named: set[str] = set()
    for old, targets in re.findall(
        r"(when '\w+' then|else) new\.sync_state in\s*\(([^)]*)\)", cases[1]
    ):
        states = set(re.findall(r"'(\w+)'", old)) or STATES - named
        named |= states
        moves |= {(state, new) for state in states for new in re.findall(r"'(\w+)'", targets)}
    return moves


def makers() -> dict[Move, set[str]]:
    """Read the table: which functions make which transition."""
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (`[^|]*`) \|", PAGE, re.MULTILINE)
    found: dict[Move, set[str]] = {}
    for old, new, names in rows:
        found.setdefault((old, new), set()).update(re.findall(r"`(\w+)`", names))
    return found


def code_of(name: str) -> str:
    """Return a SQL file without its comments."""
    return re.sub(r"--.*", "", FILES[name])


@cache
def reached_from(name: str) -> frozenset[str]:
    """Return a function's file and those of all functions it calls."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        found.add(one)
        calls = re.findall(r"\bsync(?:_priv)?\.(\w+)\(", code_of(one))
        waiting += [call for call in calls if call in FILES and call not in found]
    return frozenset(found)


def sets_state(name: str) -> bool:
    """Tell an assignment from a condition, which names the table."""
    return re.search(r"(?<![.\w])sync_state = (?:'|case)", code_of(name)) is not None


def test_the_chart_has_the_transitions_of_the_guard():
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)$", PAGE, re.MULTILINE))
    assert drawn == guarded_moves()


def test_the_table_has_the_transitions_of_the_guard():
    assert set(makers()) == guarded_moves()


def test_every_state_is_explained():
    assert set(re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)) == STATES


def test_who_is_named_for_a_transition_can_make_it():
    for (_, new), names in makers().items():
        for name in names:
            writers = [one for one in reached_from(name) if sets_state(one)]
            assert any(f"'{new}'" in code_of(one) for one in writers), (name, new)


def test_whoever_sets_a_state_is_named():
    named = frozenset().union(
        *(reached_from(name) for names in makers().values() for name in names)
    )
    assert {name for name in FILES if sets_state(name)} <= named
