"""`standpipe projection`: the tables of apps that keep themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg

from sync.cli.consumer import check_name, name_argument
from sync.cli.context import Session, database_command, explained, json_option, open_session
from sync.cli.output import counted, print_facts, print_json, print_rows, printable
from sync.cli.track import check_patterns, collection_option
from sync.config import Settings
from sync.database import first_line, refusals
from sync.errors import NoSuchProjection, UsageError

_SIGNATURE = "(regclass, sync.change[])"
_CREATE = """
    select sync.create_projection(%s, %s::regclass, %s::text[], %s::regprocedure, p_adopt => %s)
"""
_LIST = """
    select s.name, s.target, s.apply, s.owner_name as owner, s.collections,
           case when s.state <> 'running' then s.state
                when s.is_at_rest then 'at rest' when s.is_walking then 'walking'
                else 'behind' end as state,
           s.lag_rows, s.pending, s.applied_at
      from sync.projection_status s
     order by s.name
"""
_STATUS = "select * from sync.projection_status s where s.name = %s"
_PAUSE = "select sync.pause_projection(%s)"
_RESUME = "select sync.resume_projection(%s)"
_DROP = "select sync.drop_projection(%s)"
_REBUILD = "select * from sync.rebuild_projection(%s)"
# A name, or a type of an argument, that PostgreSQL does not know or cannot read.
_NAMES = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InvalidName,
    psycopg.errors.InvalidTextRepresentation,
    psycopg.errors.SyntaxError,
    psycopg.errors.FeatureNotSupported,  # that of another database
)


@click.group()
def projection() -> None:
    r"""Have tables of your own kept from the change log, exactly once.

    A projection is a table of yours and a function of yours that is given every change: a running
    service calls it. docs/how-to/projections.md shows how to write one; docs/examples/projections
    has seven. A projection belongs to the role that owns table and function.

    Examples:
      standpipe projection add posts --target app.posts --apply app.apply_posts \
        --collection app.bsky.feed.post
      standpipe projection list
    """


@projection.command("add")
@name_argument
@click.option(
    "--target",
    required=True,
    metavar="TABLE",
    callback=check_name,
    help="The table that is kept.",
)
@click.option(
    "--apply",
    required=True,
    metavar="FUNCTION",
    callback=check_name,
    help="The function that keeps it.",
)
@collection_option
@click.option("--adopt", is_flag=True, help="Replace the rows that are in the table by now.")
@json_option
@database_command
def add(
    settings: Settings,
    *,
    name: str,
    target: str,
    apply: str,
    patterns: tuple[str, ...],
    adopt: bool,
    as_json: bool,
) -> None:
    r"""Have a table kept by a function, from all collections or some.

    The function takes (target regclass, changes sync.change[]); its name is enough here.

    Example:
      standpipe projection add posts --target app.posts --apply app.apply_posts \
        --collection app.bsky.feed.post
    """
    check_patterns(patterns)
    function = apply if "(" in apply else apply + _SIGNATURE
    with open_session(settings, name="projection add") as session, _advice():
        try:
            session.execute(_CREATE, [name, target, list(patterns) or None, function, adopt])
        except _NAMES as error:
            told = first_line(error)
            raise UsageError(f"{told[0].upper()}{told[1:]}.") from error
    if as_json:
        print_json({"name": name, "target": target, "apply": apply, "collections": patterns})
    else:
        click.echo(f"Projection {printable(name)} keeps {printable(target)}.")


@projection.command("list")
@json_option
@database_command
def list_command(settings: Settings, *, as_json: bool) -> None:
    """List the projections: whether each runs, and how far it is behind.

    Example:
      standpipe projection list --json
    """
    with open_session(settings, name="projection list") as session:
        rows = session.execute(_LIST).fetchall()
    print_rows(
        rows,
        as_json=as_json,
        otherwise="There is no projection yet: standpipe projection add NAME",
    )


@projection.command("status")
@name_argument
@json_option
@database_command
def status(settings: Settings, *, name: str, as_json: bool) -> None:
    """Show where a projection stands, and what has stopped it.

    Example:
      standpipe projection status posts
    """
    with open_session(settings, name="projection status") as session, _advice():
        row = session.execute(_STATUS, [name]).fetchone()
        if row is None:
            raise NoSuchProjection("SY501", f"there is no projection {printable(name)!r}")
    if as_json:
        print_json(row)
    else:
        print_facts(row)


@projection.command("pause")
@name_argument
@json_option
@database_command
def pause(settings: Settings, *, name: str, as_json: bool) -> None:
    """Leave a table as it is until its projection is resumed.

    Example:
      standpipe projection pause posts
    """
    with _work(settings, "pause") as session:
        session.execute(_PAUSE, [name])
    _tell(name, "is paused", as_json=as_json)


@projection.command("resume")
@name_argument
@json_option
@database_command
def resume(settings: Settings, *, name: str, as_json: bool) -> None:
    """Let a projection go on where it was paused or stopped by an error.

    Example:
      standpipe projection resume posts
    """
    with _work(settings, "resume") as session:
        session.execute(_RESUME, [name])
    _tell(name, "goes on", as_json=as_json)


@projection.command("rebuild")
@name_argument
@json_option
@database_command
def rebuild(settings: Settings, *, name: str, as_json: bool) -> None:
    """Work a table out anew and write the difference; its readers see it whole all the time.

    For a function that has changed, or a table that somebody wrote to. Works as the role of the
    projection, or as a member that inherits its rights.

    Example:
      standpipe projection rebuild posts --database-url "$APP_DATABASE_URL"
    """
    with _work(settings, "rebuild") as session:
        row = session.execute(_REBUILD, [name]).fetchone() or {}
    if as_json:
        print_json({"name": name, **row})
    else:
        told = ", ".join(f"{number:,} {what}" for what, number in row.items())
        total = counted(sum(row.values()), "row")
        click.echo(f"Projection {printable(name)} is rebuilt; {total} differed: {told}.")


@projection.command("drop")
@name_argument
@json_option
@database_command
def drop(settings: Settings, *, name: str, as_json: bool) -> None:
    """Forget a projection; its table stays as it is.

    Example:
      standpipe projection drop posts
    """
    with _work(settings, "drop") as session:
        session.execute(_DROP, [name])
    _tell(name, "is forgotten; its table stays", as_json=as_json)


@contextmanager
def _work(settings: Settings, what: str) -> Iterator[Session]:
    with open_session(settings, name=f"projection {what}") as session, _advice():
        yield session


@contextmanager
def _advice() -> Iterator[None]:
    """Add to a refusal what helps."""
    with explained():
        try:
            with refusals():
                yield
        except NoSuchProjection as error:
            told = f"{error}: see `standpipe projection list`, or work as the role it belongs to."
            raise NoSuchProjection(error.sqlstate, told) from error


def _tell(name: str, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"Projection {printable(name)} {what}.")
