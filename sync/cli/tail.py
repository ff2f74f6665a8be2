"""`standpipe tail`: watch the change log without being one of its consumers."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click

from sync.changes import Change
from sync.cli.context import Session, database_command, json_option, open_session
from sync.cli.output import print_json, show
from sync.cli.track import check_patterns, collection_option, known_accounts
from sync.config import Settings
from sync.database import refusals
from sync.errors import BadArgument, ConsumerOutrun, OtherEpoch, UsageError
from sync.roles import READER

PAGE_ROWS = 1000
# A NOTIFY wakes us at once; this only bounds how long a lost connection goes unnoticed.
WAKE_UP_S = 10.0
MAX_LINE = 160
_END = """
    select sync.position_id(case %s when 'now' then s.log_head else s.log_floor end) as id
      from sync.status s
"""
_AFTER = "select sync.position_id(%s) as id"
_HEAD = "select c.change_id from sync.change_log c order by c.change_id desc limit 1"
_PAGE = """
    select c.change_id, c.position, c.kind, c.did, c.collection, c.rkey, c.rev, c.cid, c.is_live,
           c.value, c.raw, c.reason, c.logged_at
      from sync.change_log c
     where c.change_id > %(after)s and c.change_id <= %(upto)s
       and (%(dids)s::text[] is null or c.did is null or c.did = any (%(dids)s::text[]))
       and (%(patterns)s::text[] is null or c.collection is null or exists (
             select from unnest(%(patterns)s::text[]) as u (pattern)
              where u.pattern in ('*', c.collection)
                 or (right(u.pattern, 2) = '.*'
                     and starts_with(c.collection, left(u.pattern, -1)))))
     order by c.change_id
     limit %(limit)s
"""


@click.command()
@click.option(
    "--from",
    "start",
    metavar="POSITION",
    default="now",
    show_default=True,
    help="Where to start: `beginning`, `now`, or after a position such as 1.4711.",
)
@click.option(
    "--follow/--no-follow", default=True, show_default=True, help="Wait for more at the end."
)
@click.option("--did", "accounts", metavar="DID", multiple=True, help="Only this repo. May repeat.")
@collection_option
@json_option
@database_command
def tail(
    settings: Settings,
    *,
    start: str,
    follow: bool,
    accounts: tuple[str, ...],
    patterns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print changes as they are committed: creates, updates, deletes, accounts, purges.

    With --json the lines have the shape of Tap's record and identity events, plus a position to
    start from again. Several tails do not disturb each other; an app that must miss nothing and
    see nothing twice uses sync.read_changes() instead.

    Examples:
      standpipe tail --collection app.bsky.feed.post
      standpipe tail --from beginning --no-follow --json > changes.jsonl
    """
    check_patterns(patterns)
    with open_session(settings, name="tail", role=READER) as session:
        dids = known_accounts(session, accounts)
        log = LogReader(session, find_start(session, start), dids=dids, patterns=patterns)
        session.execute("listen sync_changes")
        while True:
            for change in log.read():
                print_change(change, as_json=as_json)
            if not follow:
                return
            sys.stdout.flush()
            for _ in session.notifies(timeout=WAKE_UP_S, stop_after=1):
                pass


@dataclass(slots=True)
class LogReader:
    """Reads the change log page by page; an empty filter passes everything."""

    session: Session
    position: int
    dids: Sequence[str] = field(kw_only=True, default=())
    patterns: Sequence[str] = field(kw_only=True, default=())

    def read(self) -> Iterator[Change]:
        """Yield the changes up to the end that the log has now.

        Ids are given in commit order, so nothing can appear later below an end once seen.
        """
        row = self.session.execute(_HEAD).fetchone()
        head = row["change_id"] if row else self.position
        while self.position < head:
            page = self.session.execute(
                _PAGE,
                {
                    "after": self.position,
                    "upto": head,
                    "dids": list(self.dids) or None,
                    "patterns": list(self.patterns) or None,
                    "limit": PAGE_ROWS,
                },
            ).fetchall()
            for row in page:
                change_id = row.pop("change_id")
                yield Change(**row)
                self.position = change_id
            if len(page) < PAGE_ROWS:
                self.position = head


def find_start(session: Session, start: str) -> int:
    """Return the change id after which to read."""
    query = _END if start in ("now", "beginning") else _AFTER
    try:
        with refusals():
            row = session.execute(query, [start]).fetchone()
    except BadArgument as error:
        raise UsageError(
            f"{start!r} is no position: use one that `tail` printed, `beginning` or `now`."
        ) from error
    except (OtherEpoch, ConsumerOutrun) as error:
        raise UsageError(f"{error}: read sync.records afresh, then start from `now`.") from error
    assert row is not None
    return int(row["id"])


def print_change(change: Change, *, as_json: bool) -> None:
    """Print a change on one line: cut to fit for people, whole for programs."""
    if as_json:
        print_json({**change.as_event(), "time": change.logged_at})
        return
    place = "/".join(part for part in (change.did, change.collection, change.rkey) if part)
    told = "" if change.value is None else show(change.value)
    if change.reason is not None:
        told = f"({show(change.reason)})"
    when = show(change.logged_at)
    line = f"{change.position:>8} {when} {change.kind:<8} {show(place) or '*'}"
    click.echo(f"{line}  {told}"[:MAX_LINE].rstrip())
