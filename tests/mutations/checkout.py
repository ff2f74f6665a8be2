"""A copy of the checkout in which a patch may be applied and tests may be run.

The interpreter is ours, and with it every package; but `sync` and `sql` have to be the copy's,
while the editable installation names the checkout. So what was imported is looked at before
anything is believed.

Importing the packages takes longer than most tests: a server that has them forks for each run.
"""

import compileall
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from xml.etree import ElementTree as ET

from tests.mutations.patches import ROOT, Patch

TEST_TIMEOUT_S = 120
RUN_TIMEOUT_S = 900
BASELINE_TIMEOUT_S = 7200
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "node_modules", "__pycache__", ".*_cache", "standpipe-data", "standpipe-demo"
)
_PACKAGES = ["pytest", "hypothesis", "alembic.context", "asyncpg", "psycopg", "httpx_aiohttp",
             "cryptography.hazmat.primitives.asymmetric.ec", "websockets.asyncio.client", "rich",
             "structlog", "dns.asyncresolver", "cbor2", "coincurve"]  # fmt: skip
_NOT_THE_COPY = 99
# A test that fails by one of these was not made to fail by a missing check.
_BROKEN_CODE = (
    "NameError",
    "UnboundLocalError",
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "psycopg.errors.Undefined",
    "psycopg.errors.SyntaxError",
    "asyncpg.exceptions.Undefined",
    "asyncpg.exceptions.PostgresSyntaxError",
)

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_PACKAGES)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What tests said: the first that failed, or why nothing can be concluded."""

    red: str | None = None
    fault: str | None = None


class Checkout:
    """One copy of the checkout, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        shutil.copytree(ROOT, self.root, ignore=_NOT_COPIED, symlinks=True)
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
        # Usually bytecode is told from its source by size and second: too coarse for what happens
        # here.
        compileall.compile_dir(
            self.root / "sync", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
        self._log = folder / "log"
        self._report = folder / "report.xml"
        self._tmp = folder / "tmp"
        self._tmp.mkdir()

    @contextmanager
    def patched(self, patch: Patch) -> Iterator[None]:
        """Apply a patch, and take it back afterwards; raises `BadPatch`."""
        changed = patch.changed(self.root)
        for path, text in changed.items():
            (self.root / path).write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            for path in changed:
                shutil.copy2(ROOT / path, self.root / path)

    def run(self, tests: Sequence[str], *, timeout_s: float = RUN_TIMEOUT_S) -> Verdict:
        """Run tests up to the first that fails."""
        self._report.unlink(missing_ok=True)
        arguments = ["-x", "-q", "--timeout", str(TEST_TIMEOUT_S), "--hypothesis-seed=0",
                     "-W", "ignore::pytest.PytestAssertRewriteWarning",
                     f"--junitxml={self._report}", *tests]  # fmt: skip
        process = _processes.Process(
            target=_run_pytest, args=(self.root, self._tmp, self._log, arguments)
        )
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return Verdict(fault=f"its tests took longer than {timeout_s:g} s")
        if process.exitcode == _NOT_THE_COPY:
            return Verdict(fault="the tests did not see it: they imported another checkout")
        report = self._report.read_bytes() if self._report.exists() else b""
        return judge(report, self._log.read_text(encoding="utf-8", errors="replace"))


def _run_pytest(root: Path, tmp: Path, log: Path, arguments: list[str]) -> None:
    """Run pytest in this process, which was forked for it, as if it was started in a checkout."""
    os.setsid()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp)}
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(root), *(path for path in sys.path if path not in ("", str(ROOT)))]
    import pytest

    code = pytest.main(arguments)
    imported = sys.modules.get("sync")
    is_other = imported is not None and imported.__file__ != str(root / "sync" / "__init__.py")
    os._exit(_NOT_THE_COPY if is_other else int(code))


def judge(report: bytes, log: str) -> Verdict:
    """Read what pytest reported: only a test that ran and failed for its own reasons is red."""
    cases = list(ET.fromstring(report).iter("testcase")) if report else []
    for case in cases:
        failure = case.find("failure")
        if failure is not None:
            name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
            message = failure.get("message", "")
            if message.startswith(_BROKEN_CODE):
                return Verdict(fault=f"it breaks the code: {name} fails by {message[:200]}")
            return Verdict(red=name)
    for case in cases:
        if case.find("error") is not None:
            return Verdict(fault=f"{case.get('name')} could not be run: {_last_line(log)}")
    if any(case.find("skipped") is None for case in cases):
        return Verdict()
    return Verdict(fault=f"no test ran: {_last_line(log)}")


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E  ")]
    return (errors or lines or ["pytest said nothing"])[-1].strip()[:300]
