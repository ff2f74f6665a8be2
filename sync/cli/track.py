"""`standpipe track`, `untrack`, `resync`: say what is kept here."""

from collections.abc import Sequence

import click

from sync.atproto.syntax import is_collection_pattern, is_handle, is_supported_did
from sync.cli.context import Session, database_command, json_option, open_session, run_async
from sync.cli.output import counted, print_json
from sync.config import Settings
from sync.database import refusals
from sync.errors import DatabaseRefusal, IdentityError, UpstreamUnavailable, UsageError
from sync.http import HttpClient
from sync.resolver import Resolver

_NOT_TRACKED = "SY001"

collection_option = click.option(
    "-c",
    "--collection",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="A collection: an NSID, a prefix such as app.bsky.feed.*, or *. May repeat.",
)


@click.command()
@click.argument("accounts", metavar="[DID|HANDLE]...", nargs=-1)
@collection_option
@json_option
@database_command
def track(
    settings: Settings, *, accounts: tuple[str, ...], patterns: tuple[str, ...], as_json: bool
) -> None:
    """Track repos or collections: fetched, verified and kept current by `standpipe run`.

    Without any --collection ever given, every collection of the tracked repos is kept.

    Examples:
      standpipe track alice.bsky.social did:plc:ewvi7nxzyoun6zhxrhs64oiz
      standpipe track --collection 'app.bsky.feed.*'
    """
    if not accounts and not patterns:
        raise UsageError("Name what to track: a DID, a handle, or --collection PATTERN.")
    check_patterns(patterns)
    dids = resolve_accounts(settings, accounts)
    with (
        open_session(settings, name="track", may_create=True) as session,
        refusals(),
        session.transaction(),
    ):
        # The filter first: a first repo without any would add `*`.
        new_patterns = _call(session, "track_collections", patterns)
        new_repos = _call(session, "track_repos", dids)
    if as_json:
        print_json({"dids": dids, "new_repos": new_repos, "new_collections": new_patterns})
        return
    if patterns:
        click.echo(f"{counted(new_patterns, 'new collection pattern')} tracked.")
    if dids:
        click.echo(f"{counted(new_repos, 'new repo')} tracked; `standpipe run` fetches them.")


@click.command()
@click.argument("accounts", metavar="[DID|HANDLE]...", nargs=-1)
@collection_option
@json_option
@database_command
def untrack(
    settings: Settings, *, accounts: tuple[str, ...], patterns: tuple[str, ...], as_json: bool
) -> None:
    """Stop tracking repos or collections, and delete their records.

    They are hidden at once and deleted in chunks by `standpipe run`.

    Example:
      standpipe untrack did:plc:ewvi7nxzyoun6zhxrhs64oiz
    """
    if not accounts and not patterns:
        raise UsageError("Name what to untrack: a DID, a handle, or --collection PATTERN.")
    check_patterns(patterns)
    with open_session(settings, name="untrack") as session, refusals():
        dids = known_accounts(session, accounts)
        with session.transaction():
            repos = _call(session, "untrack_repos", dids)
            collections = _call(session, "untrack_collections", patterns)
    if as_json:
        print_json({"dids": dids, "repos": repos, "collections": collections})
        return
    if patterns:
        click.echo(f"{counted(collections, 'collection pattern')} no longer tracked.")
    if dids:
        click.echo(f"{counted(repos, 'repo')} no longer tracked.")


@click.command()
@click.argument("accounts", metavar="DID|HANDLE...", nargs=-1, required=True)
@json_option
@database_command
def resync(settings: Settings, *, accounts: tuple[str, ...], as_json: bool) -> None:
    """Fetch tracked repos again and write what differs, deletes included.

    Example:
      standpipe resync did:plc:ewvi7nxzyoun6zhxrhs64oiz
    """
    with open_session(settings, name="resync") as session:
        dids = known_accounts(session, accounts)
        try:
            with refusals():
                waiting = _call(session, "resync_repos", dids)
        except DatabaseRefusal as error:
            if error.sqlstate != _NOT_TRACKED:
                raise
            told = str(error).removeprefix("did ")
            raise DatabaseRefusal(
                _NOT_TRACKED, f"{told}: track it first with `standpipe track`."
            ) from error
    if as_json:
        print_json({"dids": dids, "waiting": waiting})
    else:
        click.echo(f"{counted(waiting, 'repo')} will be fetched again by `standpipe run`.")


def check_patterns(patterns: Sequence[str]) -> None:
    """Refuse a malformed collection pattern before anything is done."""
    for pattern in patterns:
        if pattern != "*" and not is_collection_pattern(pattern):
            raise UsageError(
                f"{pattern!r} is no collection pattern: use an NSID such as app.bsky.feed.post, "
                "a prefix such as app.bsky.feed.*, or *."
            )


def check_did(text: str, settings: Settings) -> None:
    """Refuse what starts like a DID and is none that can be synced."""
    if not is_supported_did(text, allow_local=settings.allow_private_hosts):
        raise UsageError(
            f"{text!r} is no DID that can be synced: it looks like "
            "did:plc:ewvi7nxzyoun6zhxrhs64oiz or did:web:example.com."
        )


def resolve_accounts(settings: Settings, accounts: Sequence[str]) -> list[str]:
    """Return the DIDs of the named accounts, asking the network for handles."""
    handles = []
    for account in accounts:
        if account.startswith("did:"):
            check_did(account, settings)
        elif is_handle(_bare(account)):
            handles.append(_bare(account))
        else:
            raise UsageError(f"{account!r} is neither a DID nor a handle.")
    found = run_async(_resolve(settings, handles)) if handles else {}
    return [found.get(_bare(account), account) for account in accounts]


def known_accounts(session: Session, accounts: Sequence[str]) -> list[str]:
    """Return the DIDs of accounts by what the database knows, without asking the network."""
    dids = []
    for account in accounts:
        if account.startswith("did:"):
            dids.append(account)
            continue
        row = session.execute(
            "select did from sync.repo_status where handle = %s order by tracked_by nulls last",
            [_bare(account)],
        ).fetchone()
        if row is None:
            raise UsageError(f"No repo with the handle {account!r} is known here: use its DID.")
        dids.append(row["did"])
    return dids


async def _resolve(settings: Settings, handles: Sequence[str]) -> dict[str, str]:
    """Ask whom each handle belongs to."""
    found = {}
    async with HttpClient(
        user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
    ) as http:
        resolver = Resolver.from_settings(http, settings)
        try:
            for handle in handles:
                did = await resolver.find_did(handle)
                if did is None:
                    raise UsageError(
                        f"The handle {handle} belongs to nobody: check its spelling or use a DID."
                    )
                found[handle] = did
        except IdentityError as error:
            raise UpstreamUnavailable(
                f"A handle could not be resolved ({error}): try again, or use the DID."
            ) from error
        finally:
            await resolver.aclose()
    return found


def _call(session: Session, function: str, names: Sequence[str]) -> int:
    """Call one of the functions that take a list of names and return how many they changed."""
    if not names:
        return 0
    row = session.execute(f"select sync.{function}(%s) as n".encode(), [list(names)]).fetchone()
    return int(row["n"]) if row else 0


def _bare(account: str) -> str:
    """Return a handle as it is stored, without the @ people write before it."""
    return account.removeprefix("@").lower()
