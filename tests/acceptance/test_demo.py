"""The demo, as a newcomer runs it."""

import signal
import subprocess
from pathlib import Path

import pytest

from sync.cli.demo.command import empty_folder
from sync.cli.demo.fold import Fold
from sync.cli.demo.story import Report
from sync.errors import UsageError
from tests.acceptance.commands import (
    PROGRAM,
    Result,
    clean_environment,
    end,
    read_line,
    run_program,
    started_program,
)

DEMO_TIMEOUT_S = 120.0
# The demo must not care what the user's own database and settings are.
MISLEADING = {
    "STANDPIPE_DATABASE_URL": "postgresql://127.0.0.1:1/not-this-one",
    "STANDPIPE_RELAY_URL": "https://not-this-relay.example.com",
}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like a checkout: the program stands where the pasted lines expect it."""
    folder = Path(tmp_path_factory.mktemp("checkout"))
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "standpipe").symlink_to(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def shown(demo_folder: Path) -> Result:
    """Run the demo once for all tests."""
    return run_program("demo", folder=demo_folder, environment=MISLEADING)


def test_everything_it_claims_holds(shown: Result) -> None:
    assert shown.code == 0, shown
    assert "NOT" not in shown.out
    assert shown.err == ""


def test_its_last_screen_has_every_part(shown: Result) -> None:
    _, _, screen = shown.out.partition("───")
    lines = {line.split()[0]: line for line in screen.splitlines() if line.startswith("  ")}
    assert "24 repos, 6,000 records" in lines["backfilled"]
    assert "commits applied" in lines["live"]
    assert "3 creates, 1 update, 1 delete" in lines["resync"]
    assert "0 creates, 0 updates, 0 deletes" in lines["again"]
    assert "their fold is the table" in lines["log"]
    assert lines["verify"].split(maxsplit=1)[1] == "whole: 24 repos"


def test_its_three_queries_work_when_pasted(shown: Result, demo_folder: Path) -> None:
    _, _, pasted = shown.out.partition("ask it:\n\n")
    assert pasted.count(".venv/bin/standpipe query ") == 3
    done = subprocess.run(
        ["sh", "-e"],
        input=pasted,
        cwd=demo_folder,
        env=clean_environment(**MISLEADING),
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "app.bsky.feed.post" in done.stdout
    assert "i'm back" in done.stdout


def test_it_stops_its_server_and_writes_nowhere_else(shown: Result, demo_folder: Path) -> None:
    assert shown.code == 0
    assert {path.name for path in demo_folder.iterdir()} == {".venv", "standpipe-demo"}
    assert not (demo_folder / "standpipe-demo" / "cluster" / "postmaster.pid").exists()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_takes_its_server_along_when_it_is_ended(
    number: int, exit_code: int, tmp_path: Path
) -> None:
    with started_program("demo", folder=tmp_path) as process:
        assert read_line(process).startswith("PostgreSQL runs")
        assert read_line(process).startswith("Backfill")
        assert end(process, number) == exit_code
    assert (tmp_path / "program.log").read_text().strip() == ""
    assert not (tmp_path / "standpipe-demo" / "cluster" / "postmaster.pid").exists()


def test_it_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run_program("demo", "--folder", str(tmp_path), folder=tmp_path)
    result.assert_one_sentence(2, "holds other files", "--folder")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_it_refuses_a_file_as_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        empty_folder(path)


def test_a_claim_that_does_not_hold_is_remembered() -> None:
    said: list[str] = []
    report = Report(say=said.append)
    report.check("water is wet", holds=True)
    report.check("the moon is cheese", holds=False)
    assert report.failures == ["the moon is cheese"]
    assert "NOT TRUE" in said[1]


def test_the_fold_complains_about_a_log_that_lies() -> None:
    fold = Fold()
    row = {"did": "d", "collection": "c", "rkey": "r", "cid": "x"}
    fold.apply({**row, "kind": "create"})
    assert fold.complaints == []
    fold.apply({**row, "kind": "create"})
    fold.apply({**row, "kind": "delete", "cid": None})
    fold.apply({**row, "kind": "update"})
    assert len(fold.complaints) == 2
    fold.apply({**row, "kind": "purge", "rkey": None, "collection": None})
    assert fold.records == {}
