"""The two commands begin on a bare machine, and say in one sentence what is missing there."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MAKE = shutil.which("make") or "make"


def run_make(
    folder: Path, target: str, *, path: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": str(path) if path else os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [MAKE, target], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a checkout that was never used, as far as the Makefile looks at it."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a folder for PATH with a shell and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "awk", "touch", "mkdir"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def fake_python(programs: Path, script: str) -> None:
    python = programs / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


def first_sentence(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode != 0
    return done.stderr.splitlines()[0]


def test_help_is_the_default_and_lists_every_target(bare: Path) -> None:
    done = run_make(bare, "help")
    assert done.returncode == 0
    for target in ("help", "demo", "run", "test", "check", "schema"):
        assert f"make {target} " in done.stdout


def test_a_machine_without_python_is_told_to_install_it(bare: Path, programs: Path) -> None:
    said = first_sentence(run_make(bare, "test", path=programs))
    assert said == "Standpipe needs Python 3.11 or newer: install python3 and run this again."


def test_an_old_python_is_as_good_as_none(bare: Path, programs: Path) -> None:
    fake_python(programs, 'case "$2" in *version_info*) exit 1;; esac')
    assert "needs Python 3.11 or newer" in first_sentence(run_make(bare, "demo", path=programs))


def test_a_python_without_venv_is_told_the_package(bare: Path, programs: Path) -> None:
    fake_python(programs, 'case "$2" in *ensurepip*) exit 1;; esac')
    assert "apt install python3-venv" in first_sentence(run_make(bare, "test", path=programs))
    assert not (bare / ".venv").exists()


def test_ci_is_a_script_that_stops_at_the_first_failure() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", script], check=True)
