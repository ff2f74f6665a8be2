"""Write the manual's page on conformance: every rule, where it is kept, and what proves it."""

from collections.abc import Sequence
from pathlib import Path

from tests.conformance.markers import Tests, rules_of_tests
from tests.conformance.mutations import (
    Patches,
    Reasons,
    patches_of_rules,
    rules_without_patch,
)
from tests.conformance.rules import Group, Rule, load_groups

TESTS = Path(__file__).parent.parent
PAGE_FILE = TESTS.parent / "docs" / "reference" / "protocol-conformance.md"

_HEAD = """\
# Conformance to the protocol

Every rule of the AT Protocol's sync that concerns a consumer, the decisions where the sources are
silent or differ, which files keep each, the tests that fail without it (below `tests/`), and the
mutations of one line that broke it on trial. A star marks a strength that we inferred. The words
are ours, and short; the specifications are at [atproto.com](https://atproto.com/specs).

This page is written by `make schema` from `tests/conformance` and the markers of the tests. A rule
without a test says why.
"""


def render_page() -> str:
    """Return the page as the tests and mutations of this checkout make it."""
    return render(load_groups(), rules_of_tests(TESTS), patches_of_rules(), rules_without_patch())


def render(groups: Sequence[Group], tests: Tests, patches: Patches, reasons: Reasons) -> str:
    """Return the page on some groups of rules."""
    parts = [_HEAD, _summary(groups, tests)]
    for group in groups:
        parts += [
            f"## {group.title}\n",
            "| rule | level | what it asks | kept by | proven by | mutations |",
            "|---|---|---|---|---|---|",
            *(_row(rule, tests, patches, reasons) for rule in group.rules),
            "",
        ]
    return "\n".join(parts)


def _summary(groups: Sequence[Group], tests: Tests) -> str:
    rules = [rule for group in groups for rule in group.rules]
    demanded = [rule for rule in rules if rule.is_demanded]
    proven = sum(rule.name in tests for rule in rules)
    marked = {test for rule in rules for test in tests.get(rule.name, ())}
    return (
        f"{len(rules)} rules and decisions, {len(demanded)} of which must be kept; {proven} are "
        f"proven by {len(marked)} tests, {len(rules) - proven} say why they are not.\n"
    )


def _row(rule: Rule, tests: Tests, patches: Patches, reasons: Reasons) -> str:
    cells = (
        f"`{rule.name}`",
        rule.level,
        rule.words,
        _list(rule.where),
        _list(tests.get(rule.name, ())) or rule.untested,
        _list(patches.get(rule.name, ())) or rule.no_patch or reasons.get(rule.name, ""),
    )
    return "| " + " | ".join(cells) + " |"


def _list(names: Sequence[str]) -> str:
    return "<br>".join(f"`{name}`" for name in names)
