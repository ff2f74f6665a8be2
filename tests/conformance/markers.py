"""Find which tests prove which rules and play which scenarios, without importing a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

Tests = dict[str, list[str]]  # by rule: `unit/test_car.py::test_a_malformed_file_is_refused`


def rules_of_tests(folder: Path) -> Tests:
    """Return the tests of each rule that is named by a marker below a folder."""
    found: Tests = {}
    for file in _files(folder, "test_*.py"):
        name = file.relative_to(folder).as_posix()
        for test, rules in _rules_of_file(ast.parse(file.read_text(encoding="utf-8"))):
            for rule in rules:
                found.setdefault(rule, []).append(f"{name}::{test}")
    return found


def all_marks(folder: Path, marker: str = "rule") -> set[tuple[str, str]]:
    """Return every (file, id) a marker names anywhere below a folder, on a test or not."""
    return {
        (file.relative_to(folder).as_posix(), name)
        for file in _files(folder, "*.py")
        for name in _marked(ast.parse(file.read_text(encoding="utf-8")), marker)
    }


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(file for file in folder.rglob(pattern) if "node_modules" not in file.parts)


def _rules_of_file(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield each test with its rules: its own marks, the file's, and those of its parameters."""
    of_all: list[str] = []
    of_names: dict[str, list[str]] = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            of_names[node.targets[0].id] = _marked(node.value)
    of_all = of_names.pop("pytestmark", [])
    for node in module.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("test_"):
            continue
        rules = list(of_all)
        for decorator in node.decorator_list:
            rules += _marked(decorator)
            for part in ast.walk(decorator):
                if isinstance(part, ast.Name):  # a list of parameters that stands elsewhere
                    rules += of_names.get(part.id, [])
        yield node.name, list(dict.fromkeys(rules))


def _marked(tree: ast.AST, marker: str = "rule") -> list[str]:
    """Return the arguments of all `pytest.mark.rule(...)`, say, in a piece of code."""
    return [
        argument.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{marker}"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
