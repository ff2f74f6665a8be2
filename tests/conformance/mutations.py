"""Read which rules the mutations in `tests/mutations` break, and which have none, and why."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "mutations"
Patches = dict[str, list[str]]  # by rule: the names of patches
Reasons = dict[str, str]  # by rule: why no patch of one line breaks it


def patches_of_rules(folder: Path = FOLDER) -> Patches:
    """Return the patches that name each rule in their first lines."""
    found: Patches = {}
    for file in sorted(folder.glob("*.patch")):
        for rule in _rules_of(file):
            found.setdefault(rule, []).append(file.stem)
    return found


def rules_without_patch(folder: Path = FOLDER) -> Reasons:
    """Return why rules have no patch, from the file beside the patches."""
    file = folder / "without.toml"
    return dict(tomllib.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _rules_of(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(("diff ", "--- ")):
            return
        name, _, rules = line.partition(":")
        if name == "Rules":
            yield from rules.split()
