"""`standpipe view`: tables of one collection with typed columns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from sync.cli.context import (
    Session,
    database_command,
    explained,
    json_option,
    open_session,
    readable_file,
    run_async,
)
from sync.cli.output import print_json, print_rows, print_table, printable
from sync.config import Settings
from sync.errors import BadInput, DatabaseRefusal, UpstreamUnavailable, UsageError
from sync.lexicons import FoundLexicon, find_lexicon

MAX_LEXICON_BYTES = 1_048_576

_CREATE = "select * from sync.create_view(%s, %s, %s, %s, %s, %s)"
_KEEPS = "select sync.keeps_lexicon(%s, %s) as yes"
_PUT = "select sync.put_lexicon(%s, %s, %s, %s)"
_LIST = "select * from sync.list_views()"
# A name without a schema is one in sync_views.
_ONE = """
    with given as (select parse_ident(%s) as part)
    select v.* from sync.list_views() v, given g
     where parse_ident(v.view)
           = case cardinality(g.part) when 1 then array['sync_views'] || g.part else g.part end
"""


@click.group()
def view() -> None:
    """Make, list, refresh and drop views of one collection with typed columns.

    Example:
      standpipe view add posts app.bsky.feed.post --index created_at
    """


@view.command("add")
@click.argument("name")
@click.argument("nsid")
@click.option("--lexicon", type=readable_file(), help="Take the columns from this lexicon (JSON).")
@click.option(
    "--column",
    "columns",
    metavar="NAME=SQL",
    multiple=True,
    help="A column, and the SQL expression over `value` that it has. May be repeated.",
)
@click.option(
    "--index",
    "indexed",
    metavar="COLUMN",
    multiple=True,
    help="Have an index on this column of the lexicon. May be repeated.",
)
@click.option(
    "--newest-by",
    metavar="COLUMN",
    help="Give the rows in this column's order, the newest first.",
)
@click.option("--did", metavar="DID", help="Read the lexicon from this repo, without asking DNS.")
@json_option
@database_command
def add(
    settings: Settings,
    *,
    name: str,
    nsid: str,
    lexicon: Path | None,
    columns: tuple[str, ...],
    indexed: tuple[str, ...],
    newest_by: str | None,
    did: str | None,
    as_json: bool,
) -> None:
    """Make a view of one collection, or change one.

    Its columns are those of the collection's lexicon, and those given. For the first view of a
    collection the lexicon is looked up, unless there is --lexicon or --column: DNS names the repo
    that has it, and it is verified like any record. After that all views of the collection keep
    it, until --lexicon, --did or `standpipe view refresh` brings another; what else is not said
    stays as it is, too. A value that is not what the lexicon says is null. Columns keep their
    names and places when the lexicon changes.

    A view with --newest-by is for pages of the newest rows, and slow to read in any other way.

    Examples:
      standpipe view add posts app.bsky.feed.post --index created_at
      standpipe view add newest_posts app.bsky.feed.post --newest-by indexed_at
      standpipe view add likes app.bsky.feed.like --column "uri_liked=value #>> '{subject,uri}'"
    """
    is_given = lexicon is not None or bool(columns)
    if did is not None and is_given:
        raise UsageError("--did says where a lexicon is: leave out --lexicon and --column.")
    definition = None if lexicon is None else Jsonb(_read_file(lexicon))
    given = Jsonb(_read_columns(columns)) if columns else None
    with open_session(settings, name="view add", may_create=True) as session:
        is_kept = is_given or (did is None and _keeps(session, name, nsid))
        found = None if is_kept else run_async(find_lexicon(settings, nsid, did=did))
        with session.transaction():
            if found is not None:
                _keep(session, found)
            changes = _create(
                session, name, nsid, definition, given, list(indexed) or None, newest_by
            )
        (told,) = _find(session, name)
    _tell_added(told, changes, as_json=as_json)


@view.command("list")
@json_option
@database_command
def list_command(settings: Settings, *, as_json: bool) -> None:
    """List the views: their columns, and which indexes are there or still to be built.

    Example:
      standpipe view list
    """
    with open_session(settings, name="view list") as session:
        rows = session.execute(_LIST).fetchall()
    shown = [
        {
            "view": row["view"],
            "collection": row["collection"],
            "columns": len(row["columns"]),
            "indexes": ", ".join(row["indexes_ready"]),
            "to build": ", ".join(row["indexes_missing"]),
            "newest by": row["newest_by"],
            "lexicon from": row["lexicon_did"],
            "state": _state(row),
        }
        for row in rows
    ]
    print_rows(
        rows if as_json else shown,
        as_json=as_json,
        otherwise="There is no view yet: `standpipe view add`.",
    )


@view.command("drop")
@click.argument("name")
@json_option
@database_command
def drop(settings: Settings, *, name: str, as_json: bool) -> None:
    """Drop a view; a running service drops the indexes that no other view asks for.

    Example:
      standpipe view drop posts
    """
    with open_session(settings, name="view drop") as session, explained():
        session.execute("select sync.drop_view(%s)", [name])
    if as_json:
        print_json({"view": name, "done": "dropped"})
    else:
        click.echo(f"The view {printable(name)} is gone; the records stay.")


@view.command("refresh")
@click.argument("name", required=False)
@json_option
@database_command
def refresh(settings: Settings, *, name: str | None, as_json: bool) -> int:
    """Read lexicons from the network again, and change the views that were made from them.

    Each is read from the repo where it was found. To have another repo, or to ask DNS again: `view
    add --did`, or drop the collection's views and add them. One that cannot be refreshed stays as
    it is, and the others are.

    Examples:
      standpipe view refresh
      standpipe view refresh posts --json
    """
    exit_code = 0
    with open_session(settings, name="view refresh") as session:
        views = _refreshable(session, name)
        for row in views:
            try:
                found, changes = _refresh(settings, session, row)
            except (BadInput, UpstreamUnavailable, DatabaseRefusal) as error:
                if len(views) == 1:
                    raise
                click.echo(printable(f"{row['view']} stays as it is: {error}"), err=True)
                exit_code = exit_code or error.exit_code
            else:
                _tell_refreshed(row["view"], found, changes, as_json=as_json)
    if not views and not as_json:
        click.echo("No view was made from a lexicon of the network.")
    return exit_code


def _read_columns(texts: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        name = name.strip()
        if not (name and equals and expression.strip()):
            raise UsageError(f"{text!r} is not a column: give it as \"name=value ->> 'text'\".")
        if name in columns:
            raise UsageError(f"The column {name!r} is given twice.")
        columns[name] = expression
    return columns


def _read_file(path: Path) -> Any:
    with path.open("rb") as file:
        body = file.read(MAX_LEXICON_BYTES + 1)
    if len(body) > MAX_LEXICON_BYTES:
        raise BadInput(f"{path} is too long for a lexicon.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}.") from error


def _create(session: Session, *arguments: object) -> list[DictRow]:
    with explained():
        return session.execute(_CREATE, arguments).fetchall()


def _keeps(session: Session, name: str, nsid: str) -> bool:
    with explained():
        row = session.execute(_KEEPS, [name, nsid]).fetchone()
    return row is not None and bool(row["yes"])


def _refresh(
    settings: Settings, session: Session, row: DictRow
) -> tuple[FoundLexicon, list[DictRow]]:
    nsid = row["collection"]
    found = run_async(find_lexicon(settings, nsid, did=row["lexicon_did"]))
    with session.transaction():
        _keep(session, found)
        return found, _create(session, row["view"], nsid, None, None, None, None)


def _keep(session: Session, found: FoundLexicon) -> None:
    with explained():
        session.execute(_PUT, [found.nsid, Jsonb(found.lexicon), found.did, found.cid])


def _find(session: Session, name: str) -> list[DictRow]:
    with explained():
        try:
            return session.execute(_ONE, [name]).fetchall()
        except psycopg.errors.InvalidParameterValue as error:
            raise UsageError(f"{name!r} is not the name of a view.") from error


def _refreshable(session: Session, name: str | None) -> list[DictRow]:
    """Return the views to refresh: those of the network, but for what was dropped by hand."""
    if name is None:
        rows = session.execute(_LIST).fetchall()
        return [row for row in rows if row["lexicon_did"] and not row["is_missing"]]
    rows = _find(session, name)
    if not rows:
        raise UsageError(f"There is no view {name}: see `standpipe view list`.")
    if rows[0]["lexicon_did"] is None:
        hint = "use `view add` with --lexicon or --did"
        raise UsageError(f"{name} was not made from a lexicon of the network: {hint}.")
    return rows


def _state(row: DictRow) -> str:
    if row["is_missing"]:
        return "dropped by hand"
    return "" if row["is_tracked"] else "not tracked"


def _tell_added(told: DictRow, changes: Sequence[DictRow], *, as_json: bool) -> None:
    if as_json:
        print_json({**told, "columns": changes})
        return
    source = f" by the lexicon in {told['lexicon_did']}" if told["lexicon_did"] else ""
    click.echo(printable(f"{told['view']} shows {told['collection']}{source}."))
    print_table(
        ["column", "type", "change"],
        [list(change.values()) for change in changes],
    )
    if told["indexes_missing"]:
        missing = printable(", ".join(told["indexes_missing"]))
        click.echo(f"`standpipe run` builds the indexes on {missing}.")
    if not told["is_tracked"]:
        nsid = told["collection"]
        click.echo(
            f"Nothing of {nsid} is kept yet: `standpipe track --collection {nsid}`.", err=True
        )


def _tell_refreshed(
    name: str, found: FoundLexicon, changes: Sequence[DictRow], *, as_json: bool
) -> None:
    changed = [change for change in changes if change["change"] != "kept"]
    if as_json:
        print_json({"view": name, "cid": found.cid, "rev": found.rev, "changed": changed})
        return
    told = ", ".join(
        f"{change['change']} {change['column_name']} ({change['column_type']})"
        for change in changed
    )
    click.echo(printable(f"{name}: {told or 'nothing changed'}."))
