"""The rules of the protocol that Standpipe keeps, as the files in `groups` list them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "groups"
LEVELS = ("MUST", "MUST*", "SHOULD", "SHOULD*", "MAY", "MAY*", "decision")
# Hostile scenarios, which tests name by ids of their own.
SCENARIOS = frozenset(f"A-{number:02}" for number in range(1, 58))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it asks in a sentence, and which files keep it.

    `untested` says why no test proves it, `no_patch` which other rules' mutations break it.
    """

    name: str
    level: str
    words: str
    where: tuple[str, ...] = ()
    untested: str = ""
    no_patch: str = ""

    @property
    def is_demanded(self) -> bool:
        """Tell whether breaking it would be a fault of ours."""
        return self.level in ("MUST", "MUST*", "decision")


@dataclass(frozen=True, slots=True)
class Group:
    """Rules on one subject, in the order of their ids."""

    title: str
    rules: tuple[Rule, ...]


def load_groups() -> list[Group]:
    """Read all groups, in the order of their files."""
    groups = []
    for file in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        title = content.pop("title")
        rules = [
            Rule(name, **{**entry, "where": tuple(entry.get("where", ()))})
            for name, entry in content.items()
        ]
        groups.append(Group(title, tuple(rules)))
    return groups


def load_rules() -> list[Rule]:
    """Return the rules of all groups."""
    return [rule for group in load_groups() for rule in group.rules]
