"""Read which rules the mutations in `tests/mutations` break, and which have none, and why."""

import tomllib
from pathlib import Path

from tests.mutations.patches import FOLDER, read_patches

Patches = dict[str, list[str]]  # by rule: the names of patches
Reasons = dict[str, str]  # by rule: why no patch of one line breaks it


def patches_of_rules(folder: Path = FOLDER) -> Patches:
    """Return the patches that name each rule in their first lines."""
    found: Patches = {}
    for patch in read_patches(folder):
        for rule in patch.rules:
            found.setdefault(rule, []).append(patch.name)
    return found


def rules_without_patch(folder: Path = FOLDER) -> Reasons:
    """Return why rules have no patch, from the file beside the patches."""
    file = folder / "without.toml"
    return dict(tomllib.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
