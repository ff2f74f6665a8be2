"""Print tables for people and JSON for programs.

Much of what is printed was written by strangers, so control characters are shown, not sent: a
record must not move the cursor or rename the window of whoever looks at it.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A pipe has no width: nothing is wrapped or cut for it.
PIPE_WIDTH = 100_000

# C0, DEL and C1; also what turns the direction of text around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_JSON_CONTROL = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replace every control character by a visible escape."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def to_json(value: object) -> str:
    """Write JSON on one line that is safe to show."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_value)
    return _JSON_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(value: object) -> None:
    """Print one object on a line of its own."""
    click.echo(to_json(value))


def show(value: object) -> str:
    """Write a value for people."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return printable(value)
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case dict() | list():
            return to_json(value)
        case bytes() | memoryview():
            return "\\x" + bytes(value).hex()
        case _:
            return printable(str(value))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print rows under their headings; numbers stand on the right."""
    kept = [list(row) for row in rows]
    table = Table(
        box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_edge=False
    )
    for place, column in enumerate(columns):
        is_number = any(_is_number(row[place]) for row in kept)
        table.add_column(
            Text(printable(column)), justify="right" if is_number else "left", overflow="fold"
        )
    for row in kept:
        table.add_row(*(Text(show(value)) for value in row))
    console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print one name and value a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {show(value)}".rstrip())


def console() -> Console:
    """Return a console on the standard output of this moment."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _json_value(value: Any) -> object:
    """Write what JSON has no form for as PostgreSQL would write it."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case bytes() | memoryview():
            return "\\x" + bytes(value).hex()
        case Decimal():
            return int(value) if value == value.to_integral_value() else str(value)
        case timedelta() | UUID():
            return str(value)
        case _:
            return str(value)
