"""Install a folder's npm packages once, in a cache folder outside the checkout.

    <cache>/standpipe-tests/<hash of package.json>/          node_modules, setup.log, complete
    <cache>/standpipe-tests/<hash of package.json>/scripts-<hash of the scripts>/

ECMAScript modules are looked up from the folder of the script that imports them, so the scripts are
copied below the folder that holds `node_modules`. Neither folder changes once it is complete: two
checkouts with different scripts can run side by side.

The network's own packages need a `setup.sh`; a folder that brings a package.json alone is installed
by npm.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent
PLAIN_SETUP = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
INSTALL_TIMEOUT_S = 900
NODE_MAJOR_MINIMUM = 20
LOG_TAIL_CHARS = 3000


class NetworkStartError(Exception):
    """The packages cannot be installed or a network does not start; the text ends with the log."""


@dataclass(frozen=True, slots=True)
class Install:
    """Where the Node of the install and a copy of the scripts are."""

    node: Path
    scripts: Path


def missing_prerequisite() -> str | None:
    """Name what this machine lacks to run a network, or return None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"needs Linux x86-64, this is {sys.platform} {platform.machine()}"
    return missing_tool("node", "npm", "g++", "make", "python3")


def missing_tool(*tools: str) -> str | None:
    """Name the first of some programs that this machine lacks, or an old Node; or return None."""
    for tool in tools:
        if shutil.which(tool) is None:
            return f"needs {tool}"
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, timeout=60, check=False
    ).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < NODE_MAJOR_MINIMUM:
        return f"needs node {NODE_MAJOR_MINIMUM} or newer, this is {version or 'broken'}"
    return None


def requires_network() -> None:
    """Skip loudly where no network can run."""
    missing = missing_prerequisite()
    if missing is not None:
        skip_loudly(f"NOT TESTED against a real PDS: the network {missing}")


def skip_loudly(reason: str) -> None:
    """Skip; in CI fail, so that nobody believes it was tested."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def ensure_installed(source: Path = SOURCE) -> Install:
    """Return a complete install; make it first if this is the first use of this package.json."""
    home = cache_folder() / _digest(source, ["package.json"])
    if not (home / "complete").exists():
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_suffix(".lock")):
            if not (home / "complete").exists():
                _install_packages(source, home)
    node = home / "node_modules" / ".bin" / "node"
    if not node.exists():
        node = Path(shutil.which("node") or "node")
    return Install(node=node, scripts=_copy_scripts(source, home))


def cache_folder() -> Path:
    """Say where installs are kept: STANDPIPE_TEST_CACHE, else below the user's cache folder."""
    chosen = os.environ.get("STANDPIPE_TEST_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "standpipe-tests"


def log_tail(path: Path) -> str:
    """Read the end of a log, for the text of an error."""
    return path.read_text(errors="replace")[-LOG_TAIL_CHARS:]


def _install_packages(source: Path, home: Path) -> None:
    command = PLAIN_SETUP
    shutil.copyfile(source / "package.json", home / "package.json")
    if (source / "setup.sh").exists():
        command = ["bash", "setup.sh"]
        shutil.copyfile(source / "setup.sh", home / "setup.sh")
    log = home / "setup.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            exit_code = child.wait(INSTALL_TIMEOUT_S)
        except BaseException:
            # npm and the compiler are children of the shell: end the whole session it leads.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
    if exit_code != 0:
        raise NetworkStartError(
            f"{' '.join(command[:2])} exited {exit_code}; {log} ends:\n{log_tail(log)}"
        )
    (home / "complete").touch()


def _copy_scripts(source: Path, home: Path) -> Path:
    names = sorted(path.name for path in source.glob("*.mjs"))
    target = home / f"scripts-{_digest(source, names)}"
    if not target.exists():
        draft = Path(tempfile.mkdtemp(dir=home, prefix="draft-"))
        for name in names:
            shutil.copyfile(source / name, draft / name)
        try:
            draft.rename(target)
        except OSError:
            # Another process was first; what it put there is the same.
            shutil.rmtree(draft)
    return target


def _digest(source: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        content = (source / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, so a killed install blocks nobody.
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
