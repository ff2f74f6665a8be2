"""Print tables for people and JSON for programs.

Much of what is printed was written by strangers, so control characters are shown, not sent: a
record must not move the cursor or rename the window of whoever looks at it.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A table is printed in pages: the rows of a query may be more than memory holds.
PAGE_ROWS = 1000
# One long value must not push every other row of its column as far.
MAX_PADDING = 200

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


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print rows under their headings, page by page; numbers stand on the right."""
    rest = iter(rows)
    page = list(islice(rest, PAGE_ROWS))
    if not sys.stdout.isatty():
        _print_aligned(columns, page, rest, title=title)
        return
    while page:
        _print_page(columns, page, title=title)
        page = list(islice(rest, PAGE_ROWS))


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool, otherwise: str) -> None:
    """Print the rows of a query as a table or as JSON; where there is none, what that means."""
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo(otherwise)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print one name and value a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {show(value)}".rstrip())


def _print_page(columns: Sequence[str], page: Sequence[Sequence[object]], *, title: str) -> None:
    """Print a table that folds what is too wide for the terminal."""
    table = Table(
        box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_edge=False
    )
    for column, is_number in zip(columns, _number_columns(columns, page), strict=True):
        table.add_column(
            Text(printable(column)), justify="right" if is_number else "left", overflow="fold"
        )
    for row in page:
        table.add_row(*(Text(show(value)) for value in row))
    Console(highlight=False, markup=False).print(table)


def _print_aligned(
    columns: Sequence[str],
    page: Sequence[Sequence[object]],
    rest: Iterator[Sequence[object]],
    *,
    title: str,
) -> None:
    """Print to a pipe, which has no width: nothing is folded or cut, and nothing is waited for.

    The first page decides how wide the columns are.
    """
    heads = [printable(column) for column in columns]
    texts = [[show(value) for value in row] for row in page]
    widths = [
        min(MAX_PADDING, max(cell_len(text) for text in column))
        for column in zip(heads, *texts, strict=True)
    ]
    is_number = _number_columns(columns, page)

    def line(cells: Iterable[str]) -> str:
        padded = []
        for cell, width, is_right in zip(cells, widths, is_number, strict=True):
            padding = " " * (width - cell_len(cell))
            padded.append(padding + cell if is_right else cell + padding)
        return "   ".join(padded).rstrip() + "\n"

    if title:
        sys.stdout.write(f"{title}\n")
    sys.stdout.write(line(heads))
    rule = "─" if "utf" in (sys.stdout.encoding or "").lower() else "-"
    sys.stdout.write(rule * (sum(widths) + 3 * (len(widths) - 1)) + "\n")
    sys.stdout.writelines(map(line, texts))
    for row in rest:
        sys.stdout.write(line(show(value) for value in row))


def _number_columns(columns: Sequence[str], page: Sequence[Sequence[object]]) -> list[bool]:
    return [any(_is_number(row[place]) for row in page) for place in range(len(columns))]


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
