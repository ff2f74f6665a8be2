"""`standpipe source`: the firehoses that are read."""

from urllib.parse import urlsplit

import click

from sync.cli.context import Session, database_command, json_option, open_session
from sync.cli.output import print_json, print_rows
from sync.config import Settings
from sync.database import refusals
from sync.errors import BadArgument, UsageError
from sync.sources import source_url

_LIST = """
    select s.url, s.kind,
           case when s.is_enabled and s.seq is null then 'not read yet'
                when s.is_enabled then 'read'
                when s.error is not null then 'stopped' else 'paused' end as state,
           s.seq, s.lag_seconds, s.gap_since, s.compared_at,
           coalesce(s.error, s.trouble) as error
      from sync.source_status s
     order by s.source_id
"""
_KIND = "select s.kind from sync.source_status s where s.url = %s"

_SCHEMES = {"https", "wss", "http", "ws"}

url_argument = click.argument("url")


@click.group()
def source() -> None:
    """Add, pause, rewind and remove the firehoses that `standpipe run` reads.

    A source is a relay, which forwards many hosts, or a PDS, which speaks for its own accounts. A
    running service follows what is changed here within a second.

    Example:
      standpipe source add https://pds.example.com --kind pds
    """


@source.command("list")
@json_option
@database_command
def list_command(settings: Settings, *, as_json: bool) -> None:
    """List the sources: where each stands, and what stopped it or keeps it from being read.

    Example:
      standpipe source list
    """
    with open_session(settings, name="source list") as session:
        rows = session.execute(_LIST).fetchall()
    print_rows(
        rows,
        as_json=as_json,
        otherwise="There is no source yet: `standpipe run` adds the one of the settings.",
    )


@source.command("add")
@url_argument
@click.option(
    "--kind",
    type=click.Choice(["relay", "pds"]),
    help="A pds speaks for its own accounts only; a relay, the default, for many hosts.",
)
@json_option
@database_command
def add(settings: Settings, *, url: str, kind: str | None, as_json: bool) -> None:
    """Read another firehose, from now on.

    Examples:
      standpipe source add https://relay.example.com
      standpipe source add https://pds.example.com --kind pds
    """
    check_source(url, settings)
    name = source_url(url)
    with open_session(settings, name="source add", may_create=True) as session:
        row = session.execute(_KIND, [name]).fetchone()
        if row is not None and kind not in (None, row["kind"]):
            raise UsageError(f"{name} is known as a {row['kind']}: remove it first.")
        known = row["kind"] if row is not None else "relay"
        session.execute("select sync.add_source(%s, %s)", [name, kind or known])
    _tell("added", name, as_json=as_json, shown=f"{name} is read by `standpipe run`.")


@source.command("pause")
@url_argument
@json_option
@database_command
def pause(settings: Settings, *, url: str, as_json: bool) -> None:
    """Stop reading a firehose; its cursor stays.

    Example:
      standpipe source pause https://bsky.network
    """
    name = known_name(url)
    with open_session(settings, name="source pause") as session:
        _kind(session, name)
        session.execute("select sync.pause_source(%s)", [name])
    _tell("paused", name, as_json=as_json, shown=f"{name} is no longer read; its cursor stays.")


@source.command("resume")
@url_argument
@json_option
@database_command
def resume(settings: Settings, *, url: str, as_json: bool) -> None:
    """Read a paused or stopped firehose again, from its cursor.

    Example:
      standpipe source resume https://bsky.network
    """
    name = known_name(url)
    with open_session(settings, name="source resume") as session:
        session.execute("select sync.add_source(%s, %s)", [name, _kind(session, name)])
    _tell("resumed", name, as_json=as_json, shown=f"{name} is read again, from its cursor.")


@source.command("rewind")
@url_argument
@click.argument("seq", type=click.IntRange(0, 2**63 - 1))
@json_option
@database_command
def rewind(settings: Settings, *, url: str, seq: int, as_json: bool) -> None:
    """Read a firehose again from an earlier event; what is known already changes nothing.

    After FutureCursor (the server lost its history) rewind it to 0 and resume it.

    Example:
      standpipe source rewind https://bsky.network 0
    """
    name = known_name(url)
    with open_session(settings, name="source rewind") as session:
        _kind(session, name)
        try:
            with refusals():
                row = session.execute(
                    "select sync.rewind_source(%s, %s) as done", [name, seq]
                ).fetchone()
        except BadArgument as error:
            raise UsageError(f"{error}: a source can only be rewound.") from error
        if row is None or not row["done"]:
            raise UsageError(f"{name} has no cursor yet: it was never read.")
    _tell("rewound", name, as_json=as_json, shown=f"{name} is read again from {seq:,}.")


@source.command("compare")
@json_option
@database_command
def compare(settings: Settings, *, as_json: bool) -> None:
    """Compare all tracked repos with what their PDSes say, and fetch what differs.

    `standpipe run` does so by itself after events were lost, and once a week.

    Example:
      standpipe source compare
    """
    with open_session(settings, name="source compare") as session:
        row = session.execute("select sync.compare_repos() as n").fetchone()
        count = int(row["n"]) if row else 0
    if as_json:
        print_json({"sources": count})
    elif count:
        click.echo("All repos will be compared by `standpipe run`; `source list` shows gap_since.")
    else:
        click.echo("Nothing to do: no source is read, or a comparison is under way.")


@source.command("remove")
@url_argument
@json_option
@database_command
def remove(settings: Settings, *, url: str, as_json: bool) -> None:
    """Forget a firehose and its cursor; repos and records stay.

    Example:
      standpipe source remove https://relay.example.com
    """
    name = known_name(url)
    with open_session(settings, name="source remove") as session:
        _kind(session, name)
        session.execute("select sync.remove_source(%s)", [name])
    _tell("removed", name, as_json=as_json, shown=f"{name} is forgotten.")


def check_source(url: str, settings: Settings) -> None:
    """Refuse a source that is no relay's or PDS's address, before anything is written."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        has_more = parts.path.strip("/") or parts.query or parts.fragment
    except ValueError:  # a port or an address that is none
        is_usable, has_more = False, ""
    if not is_usable or has_more:
        raise UsageError(
            f"{url!r} is not a source: give the URL of a relay or PDS such as "
            "https://bsky.network, without a path."
        )
    if "@" in parts.netloc:
        raise UsageError("A source has no user and no password: its URL is shown to all readers.")
    if parts.scheme in {"http", "ws"} and not settings.allow_private_hosts:
        raise UsageError(
            f"{url!r} is not encrypted: use https, or set STANDPIPE_ALLOW_PRIVATE_HOSTS=true in "
            "development."
        )


def known_name(url: str) -> str:
    """Return the name of the source of a URL, as the database has it."""
    try:
        name = source_url(url)
    except ValueError:
        name = url
    return name if "://" in url else url


def _kind(session: Session, name: str) -> str:
    """Return what a known source is."""
    row = session.execute(_KIND, [name]).fetchone()
    if row is None:
        raise UsageError(f"There is no source {name}: see `standpipe source list`.")
    return str(row["kind"])


def _tell(done: str, name: str, *, as_json: bool, shown: str) -> None:
    if as_json:
        print_json({"url": name, "done": done})
    else:
        click.echo(shown)
