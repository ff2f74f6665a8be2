"""`standpipe verify`: prove that what is stored is what the account signed."""

import dataclasses

import click

from sync.cli.app import EXIT_FAILED
from sync.cli.context import (
    Session,
    database_command,
    json_option,
    open_server,
    open_session,
    run_async,
)
from sync.cli.output import print_json, printable
from sync.cli.track import check_did, known_accounts
from sync.config import Settings
from sync.errors import UpstreamUnavailable, UsageError
from sync.roles import READER
from sync.verifier import Verdict, find_newer, verify_repo

_NOT_PROVEN = {"broken", "unsigned", "behind"}


@click.command()
@click.argument("accounts", metavar="[DID|HANDLE]...", nargs=-1)
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(1, 100_000),
    help="Check N repos drawn at random, also whether their PDSes have anything newer.",
)
@json_option
@database_command
def verify(
    settings: Settings, *, accounts: tuple[str, ...], sample: int | None, as_json: bool
) -> None:
    """Check stored repos against the signatures of their accounts.

    The CID of every record is derived again from the stored JSON, the tree is rebuilt from the
    CIDs, and its root has to be the one that the account signed.

    Answers:
      whole          everything the account signed is here, and nothing else
      filtered       the same for the tracked collections; the PDS was asked for the other nodes
      incomplete: N  the same, but N records have contents that cannot be stored
      unsigned       nobody vouches for the records (an unsigned import)
      broken: …      what is stored is not what was signed, and why
      behind: REV    (--sample) the PDS is at this rev, and it does not arrive here

    It exits 1 when a repo is unsigned, broken or behind. A PDS that does not answer --sample is
    reported as `unknown`.

    Examples:
      standpipe verify did:plc:ewvi7nxzyoun6zhxrhs64oiz
      standpipe verify --sample 20
    """
    if bool(accounts) == (sample is not None):
        raise UsageError("Name what to verify: DIDs or handles, or --sample N.")
    for account in accounts:
        if account.startswith("did:"):
            check_did(account, settings)
    is_proven = True
    with open_server(settings) as url:
        working = dataclasses.replace(settings, database_url=url)
        with open_session(working, name="verify", role=READER) as session:
            dids = known_accounts(session, accounts) if sample is None else draw(session, sample)
        for did in dict.fromkeys(dids):
            verdict = run_async(verify_repo(working, did))
            answer = describe(verdict)
            if sample is not None and not verdict.faults:
                answer = compare(working, did, answer)
            is_proven = is_proven and answer.partition(":")[0] not in _NOT_PROVEN
            if as_json:
                print_json({"answer": answer, **dataclasses.asdict(verdict)})
            else:
                click.echo(
                    f"{did}  {printable(answer)}  ({verdict.records:,} records at {verdict.rev})"
                )
    if not is_proven:
        raise click.exceptions.Exit(EXIT_FAILED)


def draw(session: Session, count: int) -> list[str]:
    """Return the DIDs of some synchronized repos."""
    rows = session.execute("select did from sync.sample_repos(%s) as did", [count]).fetchall()
    if not rows:
        raise UsageError("No repo is synchronized yet: there is nothing to draw from.")
    return [row["did"] for row in rows]


def compare(settings: Settings, did: str, answer: str) -> str:
    """Return the answer when the PDS has nothing newer, else what it has."""
    try:
        newer = run_async(find_newer(settings, did))
    except UpstreamUnavailable as error:
        return f"unknown: {error}"
    return answer if newer is None else f"behind: {newer}"


def describe(verdict: Verdict) -> str:
    """Return the answer in the words of the help text."""
    if verdict.faults:
        more = len(verdict.faults) - 1
        return f"broken: {verdict.faults[0]}" + (f" (and {more} more)" if more else "")
    return "unsigned" if verdict.trust == "unsigned" else verdict.summary
