"""`standpipe verify`: prove that what is stored is what the account signed."""

import dataclasses

import click

from sync.cli.app import EXIT_FAILED
from sync.cli.context import database_command, json_option, open_server, open_session, run_async
from sync.cli.output import print_json, printable
from sync.cli.track import check_did, known_accounts
from sync.config import Settings
from sync.roles import READER
from sync.verifier import Verdict, verify_repo


@click.command()
@click.argument("accounts", metavar="DID|HANDLE...", nargs=-1, required=True)
@json_option
@database_command
def verify(settings: Settings, *, accounts: tuple[str, ...], as_json: bool) -> None:
    """Check stored repos against the signatures of their accounts.

    The CID of every record is derived again from the stored JSON, the tree is rebuilt from the
    CIDs, and its root has to be the one that the account signed.

    Answers:
      whole          everything the account signed is here, and nothing else
      filtered       the same for the tracked collections; the PDS was asked for the other nodes
      incomplete: N  the same, but N records have contents that cannot be stored
      unsigned       nobody vouches for the records (an unsigned import)
      broken: …      what is stored is not what was signed, and why

    It exits 1 when a repo is unsigned or broken.

    Example:
      standpipe verify did:plc:ewvi7nxzyoun6zhxrhs64oiz
    """
    for account in accounts:
        if account.startswith("did:"):
            check_did(account, settings)
    is_proven = True
    with open_server(settings) as url:
        working = dataclasses.replace(settings, database_url=url)
        with open_session(working, name="verify", role=READER) as session:
            dids = known_accounts(session, accounts)
        for did in dict.fromkeys(dids):
            verdict = run_async(verify_repo(working, did))
            answer = describe(verdict)
            is_proven = is_proven and answer.partition(":")[0] not in {"broken", "unsigned"}
            if as_json:
                print_json({"answer": answer, **dataclasses.asdict(verdict)})
            else:
                click.echo(
                    f"{did}  {printable(answer)}  ({verdict.records:,} records at {verdict.rev})"
                )
    if not is_proven:
        raise click.exceptions.Exit(EXIT_FAILED)


def describe(verdict: Verdict) -> str:
    """Return the answer in the words of the help text."""
    if verdict.faults:
        more = len(verdict.faults) - 1
        return f"broken: {verdict.faults[0]}" + (f" (and {more} more)" if more else "")
    return "unsigned" if verdict.trust == "unsigned" else verdict.summary
