"""A copy of the checkout in which a patch may be applied and tests may be run.

The interpreter is ours, and with it every package; but `sync` and `sql` have to be the copy's, and
they are only asked for by `PYTHONPATH`: the editable installation names the checkout. So this is
looked at before anything is believed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.mutations.patches import ROOT, Patch

TEST_TIMEOUT_S = 120
RUN_TIMEOUT_S = 900
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "node_modules", "__pycache__", ".*_cache", "standpipe-data", "standpipe-demo"
)
_WHERE = "import sync.schema as s; print(s.__file__); print(s._folder('_sql', 'sql'))"
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What tests said: the first that failed, or why nothing can be concluded."""

    red: str | None = None
    fault: str | None = None


class Checkout:
    """One copy of the checkout, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = folder / "checkout"
        shutil.copytree(ROOT, self.root, ignore=_NOT_COPIED, symlinks=True)
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
        (folder / "tmp").mkdir()
        # Bytecode is told from its source by size and second: too coarse for what happens here.
        self._env = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder / "tmp"),
        }

    def check_imports(self) -> None:
        """Make sure that the copy is what is imported and executed, not the checkout."""
        command = [sys.executable, "-c", _WHERE]
        found = subprocess.run(
            command, cwd=self._folder, env=self._env, capture_output=True, text=True, check=True
        )
        wanted = [self.root / "sync" / "schema.py", self.root / "sql"]
        if found.stdout.splitlines() != [str(path) for path in wanted]:
            raise RuntimeError(f"the tests would not see the patches: they use {found.stdout}")

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

    def run(self, tests: Sequence[str]) -> Verdict:
        """Run tests up to the first that fails."""
        with tempfile.NamedTemporaryFile(suffix=".xml", dir=self._folder) as report:
            command = [
                sys.executable, "-m", "pytest", "-x", "-q", "--timeout", str(TEST_TIMEOUT_S),
                "--hypothesis-seed=0", f"--junitxml={report.name}", *tests,
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, cwd=self.root, env=self._env, timeout=RUN_TIMEOUT_S,
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return Verdict(fault=f"its tests took longer than {RUN_TIMEOUT_S} s")
            return judge(Path(report.name).read_bytes(), done)


def judge(report: bytes, done: "subprocess.CompletedProcess[str]") -> Verdict:
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
            return Verdict(fault=f"{case.get('name')} could not be run: {_last_line(done)}")
    if any(case.find("skipped") is None for case in cases) and done.returncode == 0:
        return Verdict()
    return Verdict(fault=f"no test ran: {_last_line(done)}")


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E  ")]
    return (errors or lines or ["pytest said nothing"])[-1].strip()[:300]
