"""`standpipe query`: read-only SQL with the rights of an app that only reads."""

import csv
import math
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any, cast

import click
import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from sync.cli.context import Session, database_command, json_option, open_session
from sync.cli.output import print_json, print_table
from sync.config import Settings
from sync.database import first_line
from sync.errors import DatabaseUnavailable, UsageError
from sync.roles import READER

# What JSON has a form for; everything else is shown as PostgreSQL writes it.
_JSON_TYPES = frozenset(
    ("bool", "int2", "int4", "int8", "oid", "float4", "float8", "json", "jsonb")
)
_CONNECTION_CLASSES = ("08", "57P")
# What PostgreSQL says of a statement with a `$1`; the connection is well.
_PROTOCOL_VIOLATION = "08P01"
_COPY = re.compile(rb"\s*copy\b", re.IGNORECASE)


@click.command()
@click.argument("sql")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a heading.")
@database_command
def query(settings: Settings, *, sql: str, as_json: bool, as_csv: bool) -> None:
    """Run one read-only SQL statement and print its rows.

    It runs as the role sync_reader: the views of the schema `sync`, no table, no writing. Views
    that `standpipe view add` made are found by their names alone, everything else that is not
    PostgreSQL's own with its schema. A single - reads the statement from standard input.

    Examples:
      standpipe query "select collection, count(*) from sync.records group by 1 order by 2 desc"
      standpipe query --json "select value->>'text' as text from sync.records limit 3"
      standpipe query "select text from posts where did = 'did:plc:ewvi7nxzyoun6zhxrhs64oiz'"
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    statement = read_statement(sql)
    with (
        open_session(settings, name="query", role=READER) as session,
        _executed(session, statement, keeps_json=as_json) as (columns, rows),
    ):
        if as_json:
            _refuse_namesakes(columns)
            for row in rows:
                print_json(dict(zip(columns, map(_finite, row), strict=True)))
        elif not columns:
            return  # a statement without a result, such as SET
        elif as_csv:
            _print_csv(columns, rows)
        else:
            print_table(columns, rows)


def read_statement(sql: str) -> bytes:
    """Return the statement as PostgreSQL wants it; `-` means standard input."""
    try:
        statement = (sys.stdin.read() if sql == "-" else sql).encode()
    except UnicodeError as error:
        raise UsageError("The SQL is not UTF-8 text: convert it first.") from error
    if not statement.strip():
        raise UsageError('There is no SQL: give a statement in quotes, as in "select 1".')
    if b"\0" in statement:
        raise UsageError("The SQL has a zero byte: PostgreSQL would stop reading there.")
    if _COPY.match(statement):
        raise UsageError("COPY does not work here: use a select, with --csv for a file.")
    return statement


def _refuse_namesakes(columns: Sequence[str]) -> None:
    """Refuse to lose a column: a JSON object has one value for a name."""
    for column in columns:
        if columns.count(column) > 1:
            raise UsageError(f"Two columns are called {column!r}: tell them apart with `as`.")


@contextmanager
def _executed(
    session: Session, statement: bytes, *, keeps_json: bool
) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Run a statement; its rows are fetched one by one, however many there are."""
    cursor = session.cursor(row_factory=tuple_row)
    for kind in session.adapters.types:
        if not (keeps_json and kind.name in _JSON_TYPES):
            cursor.adapters.register_loader(kind.oid, TextLoader)
            cursor.adapters.register_loader(kind.array_oid, TextLoader)
    session.execute("set default_transaction_read_only = on")
    session.execute("set search_path = pg_catalog, sync_views, pg_temp")
    # Streaming uses the extended protocol, which takes one statement: nothing can end the
    # read-only transaction and begin another.
    stream = cast("Generator[tuple[Any, ...]]", cursor.stream(statement))
    # Closed before the connection is: an unfinished stream holds the lock that closing takes.
    with closing(stream):
        rows = _guarded(stream)
        first = next(rows, None)
        if first is None:
            columns = _describe(session, statement)
        else:
            columns = [column.name for column in cursor.description or ()]
        yield columns, chain(() if first is None else (first,), rows)


def _describe(session: Session, statement: bytes) -> list[str]:
    """Return the columns of a statement that gave no row: a stream does not tell them."""
    session.pgconn.prepare(b"", statement)
    described = session.pgconn.describe_prepared(b"")
    return [(described.fname(place) or b"").decode() for place in range(described.nfields)]


def _guarded(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Turn the database's complaint about a statement into one sentence."""
    try:
        yield from rows
    except psycopg.Error as error:
        if error.sqlstate is None and "produce a result" in str(error):
            return  # a statement without rows, such as SET
        sqlstate = error.sqlstate or ""
        text = first_line(error)
        if sqlstate.startswith(_CONNECTION_CLASSES) and sqlstate != _PROTOCOL_VIOLATION:
            raise DatabaseUnavailable(f"The connection was lost: {text}.") from error
        raise UsageError(_sentence(error, text)) from error


def _sentence(error: psycopg.Error, text: str) -> str:
    hint = error.diag.message_hint
    place = error.diag.statement_position
    where = f" (at character {place})" if place else ""
    return f"PostgreSQL says: {text}{where}." + (f" {hint}" if hint else "")


def _finite(value: object) -> object:
    """JSON knows no NaN and no infinity: write their names."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print_csv(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
