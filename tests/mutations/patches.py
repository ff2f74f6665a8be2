"""Read the patches beside this file, and apply them to a checkout.

A patch begins with two lines, `Rules:` and `Tests:`, then comes a unified diff. Line numbers do
not count: the lines of a hunk have to stand in the file once, so that a patch outlives changes
elsewhere, and never hits another place than it was made for.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent


class BadPatch(Exception):
    """A patch that cannot be read, or does not fit the code any more."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Some lines of a file, and what takes their place."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A check taken away: the rules it enforces, and the tests that should see it gone."""

    name: str
    rules: tuple[str, ...]
    tests: tuple[str, ...]
    hunks: tuple[Hunk, ...]

    def changed(self, root: Path) -> dict[str, str]:
        """Return the new text of each file the patch changes; raises `BadPatch`."""
        texts: dict[str, str] = {}
        for hunk in self.hunks:
            text = texts.get(hunk.path) or _read(self.name, root / hunk.path)
            count = text.count(hunk.before)
            if count != 1:
                raise BadPatch(
                    f"{self.name}.patch does not apply: the lines of a hunk stand {count} times "
                    f"in {hunk.path}. Make it again from the code as it is now."
                )
            texts[hunk.path] = text.replace(hunk.before, hunk.after)
        return texts


def read_patches(folder: Path = FOLDER) -> list[Patch]:
    """Return every patch of a folder, by name."""
    return [read_patch(path) for path in sorted(folder.glob("*.patch"))]


def read_patch(path: Path) -> Patch:
    """Read one patch; raises `BadPatch`."""
    head, _, diff = path.read_text(encoding="utf-8").partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if list(fields) != ["Rules", "Tests"]:
        raise BadPatch(f"{path.name} has to begin with the lines 'Rules: …' and 'Tests: …'.")
    hunks = _read_hunks(diff)
    if not hunks:
        raise BadPatch(f"{path.name} holds no diff.")
    return Patch(path.stem, tuple(fields["Rules"].split()), tuple(fields["Tests"].split()), hunks)


def _read_hunks(diff: str) -> tuple[Hunk, ...]:
    hunks: list[Hunk] = []
    path, before, after = "", list[str](), list[str]()

    def close() -> None:
        if before or after:
            hunks.append(Hunk(path, "".join(before), "".join(after)))
        before.clear()
        after.clear()

    for line in diff.splitlines(keepends=True):
        if line.startswith("--- a/"):
            close()
        elif line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/").strip()
        elif line.startswith("@@"):
            close()
        else:
            if line[0] != "+":
                before.append(line[1:] if line[0] in " -" else line)
            if line[0] != "-":
                after.append(line[1:] if line[0] in " +" else line)
    close()
    return tuple(hunks)


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadPatch(f"{name}.patch changes {path.name}, which does not exist.") from None
