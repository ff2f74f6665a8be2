"""`standpipe consumer`: the readers of the change log, by hand."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from sync.changes import Change
from sync.cli.context import database_command, json_option, open_server, open_session
from sync.cli.output import print_json, print_rows, printable
from sync.cli.tail import print_change
from sync.cli.track import check_patterns, collection_option, known_accounts
from sync.config import Settings
from sync.consumer import CREATE, DROP, MAX_CHANGES, REPLAY, Connection, Consumer
from sync.database import refusals
from sync.errors import ConsumerExists, ConsumerOutrun, NoSuchConsumer, UsageError

_LIST = """
    select s.name, s.shard, s.owner_name as owner, s.position, s.lag_rows, s.lag_seconds,
           case when s.is_outrun then 'outrun' when s.is_at_rest then 'at rest'
                when s.is_walking then 'walking' else 'behind' end as state,
           s.pending, s.read_at, s.collections, cardinality(s.dids) as dids
      from sync.consumer_status s
     where s.name not in (select 'projection ' || p.name from sync.projection_status p)
     order by s.name, s.shard
"""

did_option = click.option(
    "--did", "accounts", metavar="DID|HANDLE", multiple=True, help="A repo. May repeat."
)


def check_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """Refuse a name that the terminal sent in another encoding than UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError("The name is not UTF-8.") from error
    return name


name_argument = click.argument("name", callback=check_name)


class _Peeked(Exception):
    """Thrown to have the transaction of a batch rolled back."""


@click.group()
def consumer() -> None:
    """Make, read and drop consumers of the change log.

    A consumer remembers what it was given. An app reads with sync.read_changes() or with `Consumer`
    from Python, in the transaction in which it writes; these commands are for whoever sets it up
    or looks at it. A consumer belongs to the login that makes it.

    Examples:
      standpipe consumer create posts --collection app.bsky.feed.post
      standpipe consumer read posts --follow
    """


@consumer.command("list")
@json_option
@database_command
def list_command(settings: Settings, *, as_json: bool) -> None:
    """List the consumers: how far each shard is behind, and whether it can go on.

    Example:
      standpipe consumer list --json
    """
    with open_session(settings, name="consumer list") as session:
        rows = session.execute(_LIST).fetchall()
    print_rows(
        rows,
        as_json=as_json,
        otherwise="There is no consumer yet: standpipe consumer create NAME",
    )


@consumer.command("create")
@name_argument
@collection_option
@did_option
@click.option(
    "--from",
    "start",
    type=click.Choice(["beginning", "now"]),
    default="beginning",
    show_default=True,
    help="Whether every record there is comes first.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Split the repos among this many workers.",
)
@json_option
@database_command
def create(
    settings: Settings,
    *,
    name: str,
    patterns: tuple[str, ...],
    accounts: tuple[str, ...],
    start: str,
    shards: int,
    as_json: bool,
) -> None:
    """Make a consumer for all changes, or for some collections and repos.

    Examples:
      standpipe consumer create posts --collection app.bsky.feed.post
      standpipe consumer create audit --from now --shards 4
    """
    check_patterns(patterns)
    with open_session(settings, name="consumer create") as session, _advice(name):
        dids = known_accounts(session, accounts)
        session.execute(CREATE, [name, list(patterns) or None, dids or None, start, shards])
    if as_json:
        print_json({"name": name, "start": start, "shards": shards})
    else:
        click.echo(f"Consumer {printable(name)} starts from {_start(start)}.")


@consumer.command("read")
@name_argument
@click.option(
    "--shard", type=click.IntRange(0), default=0, show_default=True, help="Which part to read."
)
@click.option(
    "--max-changes",
    type=click.IntRange(1, MAX_CHANGES),
    default=1000,
    show_default=True,
    help="How many changes one transaction may take.",
)
@click.option(
    "--follow/--no-follow", default=False, show_default=True, help="Wait for more at the end."
)
@click.option("--peek", is_flag=True, help="Print the next batch only, and leave it to be read.")
@json_option
@database_command
def read(
    settings: Settings,
    *,
    name: str,
    shard: int,
    max_changes: int,
    follow: bool,
    peek: bool,
    as_json: bool,
) -> None:
    """Print what a consumer has not yet been given; what is printed counts as read.

    Each batch is acknowledged after it was printed. Whoever is interrupted in between gets it
    again: only an app that writes in the same transaction reads exactly once.

    Examples:
      standpipe consumer read posts --peek
      standpipe consumer read posts --follow --json | my-program
    """
    if peek and follow:
        raise click.UsageError("--peek and --follow exclude each other.")

    def print_batch(_conn: Connection, changes: list[Change]) -> None:
        for change in changes:
            print_change(change, as_json=as_json)
        sys.stdout.flush()
        if peek:
            raise _Peeked

    with open_server(settings) as url, _advice(name), suppress(_Peeked):
        Consumer(name, url, shard=shard, max_changes=max_changes).run(print_batch, follow=follow)


@consumer.command("replay")
@name_argument
@collection_option
@did_option
@json_option
@database_command
def replay(
    settings: Settings,
    *,
    name: str,
    patterns: tuple[str, ...],
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Have everything delivered again, or some repos and collections, after a purge of each.

    Without options it is also the way back for a consumer that the log has outrun.

    Examples:
      standpipe consumer replay posts
      standpipe consumer replay posts --did did:plc:ewvi7nxzyoun6zhxrhs64oiz
    """
    check_patterns(patterns)
    with open_session(settings, name="consumer replay") as session, _advice(name):
        dids = known_accounts(session, accounts)
        session.execute(REPLAY, [name, dids or None, list(patterns) or None])
    if as_json:
        print_json({"name": name, "dids": dids, "collections": patterns})
    else:
        what = "what was asked for" if dids or patterns else "everything"
        click.echo(f"Consumer {printable(name)} will be given {what} again.")


@consumer.command("drop")
@name_argument
@json_option
@database_command
def drop(settings: Settings, *, name: str, as_json: bool) -> None:
    """Forget a consumer and where it stood.

    Example:
      standpipe consumer drop posts
    """
    with open_session(settings, name="consumer drop") as session, _advice(name):
        session.execute(DROP, [name])
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"Consumer {printable(name)} is forgotten.")


@contextmanager
def _advice(name: str) -> Iterator[None]:
    """Add to a refusal which command helps."""
    shown = shlex.quote(printable(name))
    try:
        with refusals():
            yield
    except ConsumerOutrun as error:
        told = f"{error}: start it over with `standpipe consumer replay {shown}`."
        raise ConsumerOutrun(error.sqlstate, told) from error
    except NoSuchConsumer as error:
        told = f"{error}: see `standpipe consumer list`, or work as the role that made it."
        raise NoSuchConsumer(error.sqlstate, told) from error
    except ConsumerExists as error:
        told = f"{error}: choose another name, or drop it with `standpipe consumer drop {shown}`."
        raise ConsumerExists(error.sqlstate, told) from error


def _start(start: str) -> str:
    return "the beginning: every record first, then every change" if start == "beginning" else "now"
