"""`standpipe problems`: everything that was refused or odd."""

import click

from sync.cli.context import database_command, json_option, open_session
from sync.cli.output import print_json, print_table, printable
from sync.cli.track import known_accounts
from sync.config import Settings
from sync.reasons import explain
from sync.roles import READER

# What a row of the answer stands for, by the option's word.
_GROUPS = {"reason": "p.reason", "host": "p.reason, p.host", "did": "p.reason, p.host, p.did"}
_QUERY = """
    select {names}, sum(p.events)::bigint as events, count(distinct nullif(p.did, '')) as accounts,
           min(p.first_seen_at) as first_seen_at, max(p.last_seen_at) as last_seen_at,
           (array_agg(p.detail order by p.last_seen_at desc)
              filter (where p.detail <> ''))[1] as detail
      from sync.problems p
     where (%(reason)s::text is null or p.reason = %(reason)s)
       and (%(host)s::text is null or p.host = %(host)s)
       and (%(dids)s::text[] is null or p.did = any (%(dids)s))
     group by {names}
     order by max(p.last_seen_at) desc, {names}
     limit %(limit)s
"""


@click.command()
@click.option(
    "--by",
    type=click.Choice(list(_GROUPS)),
    default="reason",
    show_default=True,
    help="What to count apart: reasons only, also hosts, also accounts.",
)
@click.option("--reason", metavar="REASON", help="Only this reason.")
@click.option("--host", metavar="HOST", help="Only what came from this host.")
@click.option("--did", "accounts", metavar="DID|HANDLE", multiple=True, help="Only this account.")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many rows."
)
@json_option
@database_command
def problems(
    settings: Settings,
    *,
    by: str,
    reason: str | None,
    host: str | None,
    accounts: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Show what was refused, how often, and what to do about it; the latest comes first.

    Nothing is dropped in silence: what cannot be verified is not stored, and counted here.

    Examples:
      standpipe problems
      standpipe problems --by did --reason chain_break --json
    """
    with open_session(settings, name="problems", role=READER) as session:
        rows = session.execute(
            _QUERY.format(names=_GROUPS[by]).encode(),
            {
                "reason": reason,
                "host": host,
                "dids": known_accounts(session, accounts) or None,
                "limit": limit,
            },
        ).fetchall()
    if as_json:
        for row in rows:
            print_json({**row, **explain(row["reason"])._asdict()})
        return
    if not rows:
        click.echo("No problem is known." if not (reason or host or accounts) else "None of those.")
        return
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    for name in dict.fromkeys(row["reason"] for row in rows):
        meaning, advice = explain(name)
        click.echo(f"\n{printable(name)}: {meaning}.\n  {advice}")
