"""As whom PostgreSQL runs: as ourselves, or, since it refuses root, as somebody else.

Root gets a user namespace where the system allows one. Where it does not, the server runs as an
existing unprivileged user who then owns the data folder; programs that user cannot read (a
virtual environment in /root) are hard-linked beside the data.
"""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sync.embedded.binaries import Binaries
from sync.errors import DatabaseUnavailable

_LAUNCHER = Path(__file__).with_name("detach.py")
_UNPRIVILEGED = ("postgres", "nobody")
# What PostgreSQL may see of our environment: a PGPORT or PGDATA of the user is not for it.
_KEPT = ("PATH", "HOME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Account:
    """How to run a program: `plain`, `namespace`, or as another user."""

    how: str
    uid: int
    gid: int

    def run(self, command: list[str], *, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it said."""
        return subprocess.run(
            self._line("wait", command),
            input=text,
            capture_output=True,
            text=True,
            env=_environment(),
            cwd="/",
            check=False,
        )

    def detach(self, command: list[str], *, log: Path) -> int:
        """Start a daemon whose output goes to `log`; return its process id."""
        with log.open("ab") as output:
            os.chmod(log, 0o600)
            done = subprocess.run(
                self._line("detach", command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=_environment(),
                cwd="/",
                check=True,
            )
        return int(done.stdout)

    def own(self, path: Path) -> None:
        """Give a file or folder of ours to the account."""
        if self.how not in {"plain", "namespace"}:
            os.chown(path, self.uid, self.gid)

    def _line(self, manner: str, command: list[str]) -> list[str]:
        return [sys.executable, "-I", "-S", str(_LAUNCHER), self.how, manner, *command]


def choose_account(data_dir: Path) -> Account:
    """Decide as whom the server of a data folder runs; an existing folder keeps its owner."""
    me = os.geteuid()
    owner = data_dir.stat().st_uid if data_dir.exists() else me
    if me != 0:
        if owner != me:
            raise DatabaseUnavailable(
                f"The data folder {data_dir} belongs to another user: run as that user, or set "
                "STANDPIPE_DATA_DIR to a folder of your own."
            )
        return Account("plain", me, os.getegid())
    if owner != 0:
        return _as_user(owner, data_dir.stat().st_gid)
    if namespaces_work():
        return Account("namespace", 0, 0)
    for name in _UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return _as_user(user.pw_uid, user.pw_gid)
    raise DatabaseUnavailable(
        "PostgreSQL refuses to run as root and this system has no other user for it: run as "
        "another user, or set STANDPIPE_DATABASE_URL to a server."
    )


@lru_cache(maxsize=1)
def namespaces_work() -> bool:
    """Tell whether root may open a user namespace here (some containers forbid it)."""
    return Account("namespace", 0, 0).run([shutil.which("true") or "/bin/true"]).returncode == 0


def readable_binaries(binaries: Binaries, account: Account, data_dir: Path) -> Binaries:
    """Return binaries the account can execute, hard-linked beside the data where need be."""
    if account.how in {"plain", "namespace"}:
        return binaries
    if account.run([str(binaries.program("postgres")), "--version"]).returncode == 0:
        return binaries
    installation = binaries.folder.parent
    copy = data_dir / f"postgresql-{binaries.major}"
    linked = Binaries(copy / installation.parent.name / installation.name / "bin", binaries.major)
    if not linked.program("postgres").exists():
        for folder in (copy, linked.folder.parent.parent):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        _link_tree(installation, linked.folder.parent)
        # Wheels keep shared libraries in a folder beside the package.
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        if libraries.is_dir():
            _link_tree(libraries, copy / libraries.name)
    if account.run([str(linked.program("postgres")), "--version"]).returncode != 0:
        name = pwd.getpwuid(account.uid).pw_name
        raise DatabaseUnavailable(
            f"PostgreSQL has to run as {name}, who cannot reach {data_dir}: set "
            "STANDPIPE_DATA_DIR to a folder outside private ones, such as /var/lib/standpipe."
        )
    return linked


def _as_user(uid: int, gid: int) -> Account:
    return Account(f"{uid}:{gid}", uid, gid)


def _link_tree(source: Path, target: Path) -> None:
    """Hard-link a tree, or copy it where the file systems differ; folders become readable."""

    def link(old: str, new: str) -> str:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)
        return new

    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=link)
    for folder, _, _ in os.walk(partial):
        os.chmod(folder, 0o755)  # noqa: S103  (programs, not data)
    partial.rename(target)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
