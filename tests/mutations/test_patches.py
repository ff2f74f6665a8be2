"""The patches fit the code as it is. That each turns a test red is for `make mutate` to see."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

from tests.mutations.checkout import Verdict, judge
from tests.mutations.patches import FOLDER, ROOT, BadPatch, read_patch, read_patches

PATCHES = read_patches()
WITHOUT = tomllib.loads((FOLDER / "without.toml").read_text(encoding="utf-8"))
RULE = re.compile(r"[A-Z]{2}-[0-9]{2}")

PATCH = """\
Rules: CM-11 SN-03
Tests: tests/unit/test_verify.py::test_a tests/unit/test_lane.py

--- a/sync/a.py
+++ b/sync/a.py
@@ -1,3 +1,2 @@
 one
-two
 three
@@ -7,2 +7,2 @@
-seven
+SEVEN
 eight
--- a/sql/b.sql
+++ b/sql/b.sql
@@ -1 +1 @@
--- a comment
+
"""


@functools.cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def is_test(node: str) -> bool:
    path, _, name = node.partition("::")
    return (ROOT / path).is_file() and (not name or name in functions(ROOT / path))


def test_every_patch_applies_and_changes_what_a_rule_is_about() -> None:
    for patch in PATCHES:
        for path, text in patch.changed(ROOT).items():
            assert path.startswith(("sync/", "sql/", "migrations/")), patch.name
            assert text != (ROOT / path).read_text(encoding="utf-8"), patch.name


def test_every_patch_names_rules_and_tests_that_exist() -> None:
    assert [patch.name for patch in PATCHES if not all(map(RULE.fullmatch, patch.rules))] == []
    unknown = {patch.name: [test for test in patch.tests if not is_test(test)] for patch in PATCHES}
    assert {name: tests for name, tests in unknown.items() if tests} == {}


def test_a_rule_without_a_patch_has_a_reason() -> None:
    patched = {rule for patch in PATCHES for rule in patch.rules}
    assert not patched & WITHOUT.keys()
    assert all(RULE.fullmatch(rule) and reason for rule, reason in WITHOUT.items())


def test_a_patch_changes_the_one_place_where_its_lines_stand(tmp_path: Path) -> None:
    (tmp_path / "made.patch").write_text(PATCH)
    patch = read_patch(tmp_path / "made.patch")
    assert patch.rules == ("CM-11", "SN-03")
    assert patch.tests == ("tests/unit/test_verify.py::test_a", "tests/unit/test_lane.py")
    (tmp_path / "sync").mkdir()
    (tmp_path / "sql").mkdir()
    code, sql = tmp_path / "sync" / "a.py", tmp_path / "sql" / "b.sql"
    code.write_text("zero\none\ntwo\nthree\nseven\neight\n")
    sql.write_text("-- a comment\nselect 1\n")
    assert patch.changed(tmp_path) == {
        "sync/a.py": "zero\none\nthree\nSEVEN\neight\n",
        "sql/b.sql": "\nselect 1\n",
    }
    code.write_text("one\ntwo\nthree\n" * 2)
    with pytest.raises(BadPatch, match="stand 2 times"):
        patch.changed(tmp_path)
    code.unlink()
    with pytest.raises(BadPatch, match="does not exist"):
        patch.changed(tmp_path)


@pytest.mark.parametrize(
    "text", ["Rules: CM-11\n\n--- a/x\n", "Rules: CM-11\nTests: x\n\n", PATCH.replace("Te", "Fe")]
)
def test_a_file_that_is_no_patch_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "made.patch").write_text(text)
    with pytest.raises(BadPatch, match=r"made\.patch"):
        read_patch(tmp_path / "made.patch")


def report(inner: str) -> bytes:
    case = f'<testcase classname="tests.unit.test_a" name="test_b">{inner}</testcase>'
    return f"<testsuites><testsuite>{case}</testsuite></testsuites>".encode()


@pytest.mark.parametrize(
    ("xml", "verdict"),
    [
        (report(""), Verdict()),
        (report('<failure message="AssertionError: x"/>'), Verdict(red="test_a.py::test_b")),
        (report('<failure message="NameError: x"/>'),
         Verdict(fault="it breaks the code: test_a.py::test_b fails by NameError: x")),
        (report('<error message="x"/>'), Verdict(fault="test_b could not be run: E  said")),
        (report('<skipped message="x"/>'), Verdict(fault="no test ran: E  said")),
        (b"", Verdict(fault="no test ran: E  said")),
    ],
)  # fmt: skip
def test_only_a_test_that_ran_and_failed_is_red(xml: bytes, verdict: Verdict) -> None:
    assert judge(xml, "E  said\nmore\n") == verdict
