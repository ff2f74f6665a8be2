"""Every reason under which something is counted is explained to the user."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from sync import errors
from sync.download import FetchError
from sync.http import HttpReason
from sync.reasons import REPORT, explain, render_reference
from sync.triage import Doubt

ROOT = Path(__file__).parents[2]
# Calls whose first argument is a reason, with the prefix under which it is counted.
CALLS = {"refuse": "", "note": "", "FetchError": "fetch_", "IdentityError": "identity_"}
WORD = re.compile(r"[a-zA-Z]+(_[a-zA-Z]+)*")


def is_protocol_error(name: str) -> bool:
    """Tell whether a call raises one of the errors that carry a reason."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type):
        return issubclass(kind, errors.ProtocolError)
    return name in {"BadMessage", "CborError", "MstError", "CarError", "OpsError"}


def reasons_in_python() -> Iterator[str]:
    """Yield every reason that the code writes as a literal."""
    for file in (ROOT / "sync").rglob("*.py"):
        if "simnet" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function, first = node.func, node.args[0]
            name = function.id if isinstance(function, ast.Name) else ""
            name = function.attr if isinstance(function, ast.Attribute) else name
            if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                continue
            if (name in CALLS or is_protocol_error(name)) and WORD.fullmatch(first.value):
                yield CALLS.get(name, "") + first.value


def reasons_in_sql() -> Iterator[str]:
    """Yield the reasons that SQL functions count by themselves."""
    for name in ("break_chains", "bound_held", "end_idle_holder"):
        for file in (ROOT / "sql").rglob(f"{name}.sql"):
            yield from re.findall(r"'([a-z]+_[a-z_]+)'", file.read_text(encoding="utf-8"))


LITERALS = sorted(
    {
        *reasons_in_python(),
        *(f"fetch_{reason}" for reason in get_args(HttpReason)),
        *get_args(Doubt),
    }
)


@pytest.mark.parametrize("reason", LITERALS)
def test_every_reason_of_the_code_is_explained(reason: str) -> None:
    assert explain(reason).meaning != "not documented"


def test_the_search_finds_reasons_of_every_kind() -> None:
    wanted = {
        "bad_commit",
        "bad_field",
        "bad_node",
        "car_cut",
        "float",
        "fetch_refused",
        "identity_malformed",
    }
    assert wanted <= set(LITERALS)
    assert len(LITERALS) > 70


@pytest.mark.parametrize("reason", ["chain_break", "sync_differs", "held_overflow"])
def test_reasons_of_the_sql_are_explained(reason: str) -> None:
    assert reason in set(reasons_in_sql())
    assert explain(reason).meaning != "not documented"


def test_the_page_is_not_stale() -> None:
    written = (ROOT / "docs" / "reference" / "problems.md").read_text(encoding="utf-8")
    assert written == render_reference(), "run: make schema"


def test_prefixes_say_what_failed() -> None:
    assert explain("fetch_bad_node").meaning.startswith("the repo could not be fetched: a tree")
    assert explain("fetch_identity_transient").meaning.startswith("the repo could not be fetched")
    assert "22P05" in explain("apply_22P05").meaning
    assert explain("fetch_too_big").advice != REPORT
    assert explain("never_heard_of").advice == REPORT
    assert str(FetchError("spool", "full")) == "spool: full"
