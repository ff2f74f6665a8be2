"""The manual's page on the command line is what `--help` says."""

from pathlib import Path

from sync.cli.reference import render_reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_the_page_is_not_stale() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == render_reference(), "run: make schema"
