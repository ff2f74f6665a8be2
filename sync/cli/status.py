"""`standpipe status`: how everything stands, or how some repos do."""

from collections.abc import Sequence
from typing import Any

import click

from sync.cli.context import Session, database_command, json_option, open_session
from sync.cli.output import print_facts, print_json, print_table
from sync.cli.track import known_accounts
from sync.config import Settings
from sync.errors import StandpipeError
from sync.roles import READER

_STATES = ("synchronized", "fetching", "pending", "desynchronized", "failed", "hidden")
MAX_TROUBLED = 20
MAX_PROBLEMS = 10

_TROUBLED = """
    select r.did, r.handle, r.sync_state, r.attempts, r.next_fetch_at, r.error
      from sync.repo_status r
     where r.tracked_by is not null and r.error is not null
     order by r.updated_at desc
     limit %s
"""
_LOG = """
    select count(*) as partitions, coalesce(sum(p.bytes), 0)::bigint as bytes,
           min(p.oldest_at) as oldest_at,
           max(p.held_back_by) filter (where p.held_back_by <> 'age') as held_back_by,
           min(p.keep_age)::text as keep_age, min(p.max_age)::text as max_age,
           min(p.max_bytes) as max_bytes
      from sync.log_status p
"""
_PROBLEMS = """
    select p.reason, p.host, p.did, p.events, p.last_seen_at, p.detail
      from sync.problems p
     order by p.last_seen_at desc
     limit %s
"""


@click.command()
@click.argument("accounts", metavar="[DID|HANDLE]...", nargs=-1)
@json_option
@database_command
def status(settings: Settings, *, accounts: tuple[str, ...], as_json: bool) -> None:
    """Show how the sync stands: repos by state, sources, what went wrong lately.

    With DIDs, show those repos: state, head, what they wait for.

    Examples:
      standpipe status
      standpipe status --json did:plc:ewvi7nxzyoun6zhxrhs64oiz
    """
    with open_session(settings, name="status", role=READER) as session:
        if accounts:
            for repo in find_repos(session, accounts):
                if as_json:
                    print_json(repo)
                else:
                    print_facts(repo)
                    click.echo()
            return
        overview = read_overview(session)
        if as_json:
            print_json(overview)
        else:
            _print_overview(overview)


def find_repos(session: Session, accounts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of some repos in the order asked for."""
    dids = known_accounts(session, accounts)
    rows = session.execute("select * from sync.repo_status where did = any (%s)", [dids])
    found = {row["did"]: row for row in rows}
    missing = [did for did in dids if did not in found]
    if missing:
        raise StandpipeError(
            f"{missing[0]} is not known here: track it with `standpipe track {missing[0]}`."
        )
    return [found[did] for did in dict.fromkeys(dids)]


def read_overview(session: Session) -> dict[str, Any]:
    """Return the row of `sync.status` with sources, repos in trouble and the last problems."""
    return {
        "status": session.execute("select * from sync.status").fetchone(),
        "log": session.execute(_LOG).fetchone(),
        "sources": session.execute(
            "select * from sync.source_status order by source_id"
        ).fetchall(),
        "troubled_repos": session.execute(_TROUBLED, [MAX_TROUBLED]).fetchall(),
        "problems": session.execute(_PROBLEMS, [MAX_PROBLEMS]).fetchall(),
    }


def _print_overview(overview: dict[str, Any]) -> None:
    state = overview["status"]
    print_table(
        ["repos", *_STATES, "records (about)", "held events", "log", "problems"],
        [
            [
                state["repos"],
                *(state[name] for name in _STATES),
                state["records_estimate"],
                state["held_events"],
                f"{state['log_floor']} … {state['log_head']}",
                state["problems"],
            ]
        ],
    )
    _print_rows("Change log", [overview["log"]])
    _print_rows("Sources", overview["sources"])
    _print_rows("Repos in trouble", overview["troubled_repos"])
    _print_rows("Last problems", overview["problems"])
    if not state["repos"]:
        click.echo("Nothing is tracked yet: standpipe track DID|HANDLE")


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows], title=title)
