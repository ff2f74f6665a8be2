"""The wheel is complete: installed alone it upgrades an empty database."""

import importlib.metadata
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import sync
from sync.schema import code_revision

CHECKOUT = Path(__file__).parents[2]

UPGRADE = """
import sys
from sync.schema import migrations_folder, sql_folder, upgrade
print(upgrade(sys.argv[1]))
print(sql_folder())
print(migrations_folder())
"""


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release would, without a package index."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment with the wheel and, behind it, our packages.

    A path file leads to the dependencies of this run, so nothing is downloaded; path files in
    there are not followed, so the checkout itself stays out of sight.
    """
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=CHECKOUT)
    python = environment / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where, folder=environment).strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=environment)
    return python


def test_the_wheel_carries_every_sql_file_and_migration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, target in (("sql", "sync/_sql"), ("migrations", "sync/_migrations")):
        for path in (CHECKOUT / source).rglob("*"):
            if path.suffix in {".sql", ".mako"} or path.name == "env.py":
                inside = path.relative_to(CHECKOUT / source).as_posix()
                assert f"{target}/{inside}" in names


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"sync", f"standpipe-{sync.__version__}.dist-info"}


def test_an_installed_wheel_upgrades_an_empty_database(
    clean_python: Path, empty_database: str, tmp_path: Path
) -> None:
    said = run(clean_python, "-I", "-c", UPGRADE, empty_database, folder=tmp_path).split("\n")
    assert said[0] == code_revision()
    assert Path(said[1]).is_relative_to(clean_python.parents[1])
    assert said[1].endswith("sync/_sql")
    assert said[2].endswith("sync/_migrations")


def test_the_command_is_installed(clean_python: Path, tmp_path: Path) -> None:
    assert "upgrade" in run(clean_python.with_name("standpipe"), "--help", folder=tmp_path)


def test_no_other_distribution_claims_our_import_name(clean_python: Path, tmp_path: Path) -> None:
    """Others are called `sync` too: Standpipe is an application with an environment of its own."""
    owners = importlib.metadata.packages_distributions().get("sync", [])
    assert set(owners) <= {"standpipe"}
    assert Path(sync.__file__).is_relative_to(CHECKOUT)
    ask = "import importlib.metadata as m; print(set(m.packages_distributions()['sync']))"
    assert run(clean_python, "-I", "-c", ask, folder=tmp_path).strip() == "{'standpipe'}"
