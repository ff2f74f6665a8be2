"""What the command line prints, and what of a stranger's text reaches the terminal."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from rich.cells import cell_len
from rich.console import Console

from sync.cli.display import Display, Rate, Stored
from sync.cli.findings import since, size
from sync.cli.output import (
    MAX_PADDING,
    PAGE_ROWS,
    counted,
    print_facts,
    print_table,
    printable,
    show,
    to_json,
)
from sync.progress import Progress, SourceProgress


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\n", "\x7f", "\x9b", "\u202e"])
def test_control_characters_are_shown_not_sent(character: str) -> None:
    assert character not in printable(f"a{character}b")
    assert character not in to_json({"text": f"a{character}b"})
    assert json.loads(to_json({"text": f"a{character}b"})) == {"text": f"a{character}b"}


def test_other_scripts_stay_as_they_are() -> None:
    assert printable("東京 café 🌊") == "東京 café 🌊"
    assert to_json({"t": "東京"}) == '{"t":"東京"}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (1234567, "1,234,567"),
        (2.25, "2.2"),
        (datetime(2026, 11, 23, 10, 0, tzinfo=UTC), "2026-11-23 10:00:00"),
        (b"\x00\xff", "\\x00ff"),
        ({"a": [1]}, '{"a":[1]}'),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert show(value) == text


def test_values_without_a_json_form_are_written_as_text() -> None:
    value = {
        "at": datetime(2026, 11, 23, tzinfo=UTC),
        "raw": b"\x01",
        "whole": Decimal(3),
        "part": Decimal("0.5"),
        "id": UUID(int=0),
    }
    assert json.loads(to_json(value)) == {
        "at": "2026-11-23T00:00:00+00:00",
        "raw": "\\x01",
        "whole": 3,
        "part": "0.5",
        "id": "00000000-0000-0000-0000-000000000000",
    }


def test_a_table_in_a_pipe_is_neither_cut_nor_styled(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "n"], [["x" * 300, 1], ["[bold]", 22]], title="Title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "Title"
    assert "x" * 300 in lines[3]
    assert lines[4].split() == ["[bold]", "22"]


def test_a_long_table_begins_before_its_last_row_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rows() -> Iterator[list[object]]:
        for number in range(PAGE_ROWS):
            yield [number, "x"]
        assert capsys.readouterr().out.splitlines()[-1].split() == ["999", "x"]
        yield [PAGE_ROWS, "wider than the first page"]

    print_table(["n", "t"], rows())
    assert capsys.readouterr().out == "1,000   wider than the first page\n"


def test_one_long_value_does_not_push_the_other_rows_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(["long", "after"], [["x" * 5000, "a"], ["東京", "b"]])
    *_, rule, long, short = capsys.readouterr().out.splitlines()
    assert long.split() == ["x" * 5000, "a"]
    assert cell_len(short) == cell_len(rule) - len("after") + 1 == MAX_PADDING + 4


def test_facts_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"a": 1, "longer": None})
    assert capsys.readouterr().out == "a       1\nlonger\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 s ago"), (150, "2 minutes ago"), (8000, "2 hours ago")]
)
def test_ages_are_written_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert since(seconds) == text


def test_sizes_are_written_in_a_fitting_unit() -> None:
    assert [size(n) for n in (5, 5 << 10, 5 << 20, 5 << 30)] == [
        "5 bytes",
        "5 KiB",
        "5 MiB",
        "5.0 GiB",
    ]


def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "repo") for n in (0, 1, 1000)] == ["0 repos", "1 repo", "1,000 repos"]


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.update(100, 0.0) == 0.0
    assert rate.update(200, 1.0) == 100.0
    for second in range(2, 30):
        last = rate.update(200, float(second))
    assert last == 0.0


def test_the_display_shows_what_matters() -> None:
    progress = Progress()
    source = SourceProgress("wss://relay.example.com", "relay", state="live", seq=7)
    progress.sources[1] = source
    progress.count_outcome("applied", 1234)
    progress.is_database_up = False
    progress.gaps_open = 1
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    display = Display(progress, "postgresql://nowhere", title="a test", console=console)
    display._stored = Stored(
        {
            "repos": 3,
            "synchronized": 2,
            "failed": 1,
            "records_estimate": 1200,
            "held_events": 0,
            "log_head": "1.17",
            "lag_seconds": 0.5,
        },
        [
            {
                "last_seen_at": datetime(2026, 11, 23, tzinfo=UTC),
                "reason": "chain_break",
                "did": "did:plc:\x1b[31m",
                "host": "",
                "events": 2,
            }
        ],
    )
    console.print(display.render())
    console.file.close()
    shown = console.export_text()
    assert "3 repos: 2 synchronized, 1 failed · about 1,200 records" in shown
    assert "1,234 commits applied" in shown
    assert "wss://relay.example.com" in shown
    assert "the database is away" in shown
    assert "1 gap being closed" in shown
    assert "chain_break (2 times) did:plc:\\x1b[31m" in shown


def test_a_narrow_terminal_wraps_the_display_and_hides_nothing() -> None:
    progress = Progress()
    progress.sources[1] = SourceProgress("wss://relay.example.com", "relay", state="live", seq=7)
    console = Console(width=40, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    display = Display(progress, "postgresql://nowhere", title="a test", console=console)
    assert "has not answered yet" in str(display.render().renderables[1])
    display._stored = Stored(
        {
            "repos": 1,
            "desynchronized": 1,
            "records_estimate": 5,
            "held_events": 2,
            "log_head": "1.9",
        }
    )
    console.print(display.render())
    console.file.close()
    shown = " ".join(console.export_text().split())
    assert "…" not in shown
    assert "1 repo: 1 desynchronized · about 5 records · 2 held events · log at 1.9" in shown
    assert "wss://relay.example.com: live, read to 7, durable to nothing" in shown
