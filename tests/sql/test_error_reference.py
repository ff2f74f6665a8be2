"""The reference of errors names every SQLSTATE that the SQL files raise, and no other."""

import re
from pathlib import Path

from sync.schema import sql_folder

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def test_the_reference_lists_what_is_raised() -> None:
    raised = {
        code
        for path in sql_folder().rglob("*.sql")
        for code in re.findall(r"errcode = '(SY\w+)'", path.read_text(encoding="utf-8"))
    }
    listed = set(re.findall(r"(?m)^\| `(SY\w+)`", REFERENCE.read_text(encoding="utf-8")))
    assert listed == raised
