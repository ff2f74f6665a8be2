"""Every rule of the protocol is kept somewhere and proven by a test, or says why not."""

import re
from pathlib import Path

import pytest

from tests.conformance.markers import all_marks, rules_of_tests
from tests.conformance.mutations import patches_of_rules, rules_without_patch
from tests.conformance.page import PAGE_FILE, render, render_page
from tests.conformance.rules import LEVELS, Group, Rule, load_rules

ROOT = Path(__file__).parents[2]
# The list that ours was made from, if it lies beside the checkout; its section D decides.
SOURCE = ROOT.parent / "shared" / "protocol" / "rules.md"

RULES = load_rules()
TESTS = rules_of_tests(ROOT / "tests")


def test_the_page_is_not_stale() -> None:
    assert PAGE_FILE.read_text(encoding="utf-8") == render_page(), "run: make schema"


def test_a_rule_is_listed_once_and_has_a_level() -> None:
    names = [rule.name for rule in RULES]
    assert sorted(set(names)) == sorted(names)
    assert {rule.level for rule in RULES} <= set(LEVELS)


def test_every_rule_is_proven_or_says_why_not() -> None:
    assert [rule.name for rule in RULES if (rule.name in TESTS) == bool(rule.untested)] == []


def test_what_keeps_a_rule_exists() -> None:
    assert [rule.name for rule in RULES if not (rule.where or rule.untested)] == []
    assert [path for rule in RULES for path in rule.where if not (ROOT / path).is_file()] == []


def test_every_demanded_rule_has_a_mutation_or_says_why_not() -> None:
    known = patches_of_rules().keys() | rules_without_patch().keys()
    demanded = [rule for rule in RULES if rule.is_demanded and not (rule.untested or rule.no_patch)]
    assert [rule.name for rule in demanded if rule.name not in known] == []


def test_every_marker_names_a_rule() -> None:
    known = {rule.name for rule in RULES}
    assert sorted(mark for mark in all_marks(ROOT / "tests") if mark[1] not in known) == []


def test_every_marker_is_on_a_test() -> None:
    found = {(test.partition("::")[0], rule) for rule, tests in TESTS.items() for test in tests}
    assert sorted(all_marks(ROOT / "tests") - found) == []


@pytest.mark.skipif(not SOURCE.is_file(), reason="the list that ours was made from is not here")
def test_ids_and_levels_are_those_of_the_list_that_ours_was_made_from() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| ([A-Z]{2}-\d\d) \| ([A-Z]+\*?) \|", text, re.MULTILINE))
    listed |= dict.fromkeys(re.findall(r"^- \*\*(D-\d\d) ", text, re.MULTILINE), "decision")
    assert {rule.name: rule.level for rule in RULES} == listed


def test_a_marker_is_found_wherever_it_may_stand(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "test_x.py").write_text(
        "import pytest\n"
        'pytestmark = [pytest.mark.rule("OF-01")]\n'
        'CASES = [pytest.param(1, marks=pytest.mark.rule("IN-01"))]\n'
        '@pytest.mark.rule("ON-01", "ON-02")\n'
        '@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.rule("BY-01"))])\n'
        "def test_a(n): ...\n"
        '@pytest.mark.parametrize("n", CASES)\n'
        "async def test_b(n): ...\n"
        '@pytest.mark.rule("NO-01")\n'
        "def helper(): ...\n"
    )
    both, a, b = ["test_a", "test_b"], ["test_a"], ["test_b"]
    expected = {"OF-01": both, "ON-01": a, "ON-02": a, "BY-01": a, "IN-01": b}
    assert rules_of_tests(tmp_path) == {
        rule: [f"unit/test_x.py::{name}" for name in names] for rule, names in expected.items()
    }
    marks = {("unit/test_x.py", rule) for rule in (*expected, "NO-01")}
    assert all_marks(tmp_path) == marks


def test_a_patch_belongs_to_the_rules_of_its_head(tmp_path: Path) -> None:
    head = "Rules: CA-06 CM-08\nTests: tests/unit/test_car.py::test_a\n\n"
    diff = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-Rules: NO-01\n+\n"
    (tmp_path / "unhashed.patch").write_text(head + diff)
    (tmp_path / "without.toml").write_text('"ES-18" = "nothing sends"\n')
    assert patches_of_rules(tmp_path) == {"CA-06": ["unhashed"], "CM-08": ["unhashed"]}
    assert rules_without_patch(tmp_path) == {"ES-18": "nothing sends"}
    nowhere = tmp_path / "nowhere"
    assert (patches_of_rules(nowhere), rules_without_patch(nowhere)) == ({}, {})


def test_a_row_names_what_keeps_proves_and_breaks_a_rule() -> None:
    rules = (
        Rule("XX-01", "MUST", "Nothing.", ("sync/a.py", "b.py")),
        Rule("XX-02", "MAY", "All.", untested="For once.", no_patch="Those of XX-01."),
        Rule("XX-03", "MUST*", "Some."),
    )
    tests, patches = {"XX-01": ["t.py::a", "t.py::b"]}, {"XX-01": ["p"]}
    page = render([Group("Odd", rules)], tests, patches, {"XX-03": "There is no line."})
    assert page.splitlines()[-3:] == [
        "| `XX-01` | MUST | Nothing. | `sync/a.py`<br>`b.py` | `t.py::a`<br>`t.py::b` | `p` |",
        "| `XX-02` | MAY | All. |  | For once. | Those of XX-01. |",
        "| `XX-03` | MUST* | Some. |  |  | There is no line. |",
    ]
    assert "3 rules and decisions, 2 of which must be kept; 1 are proven by 2 tests" in page
