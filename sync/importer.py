"""Load a repo from a CAR file, offline: the same verification and the same reconcile as a fetch.

The key comes from the user, from a DID document in a file, or from the network. Without any of
them nothing proves who wrote the repo; that is only accepted on request, and the repo says so.
"""

import asyncio
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sync.atproto.export import Export, ExportLimits, read_export, read_owner
from sync.atproto.identity import parse_did_document
from sync.atproto.keys import DID_KEY_PREFIX, PublicKey, parse_did_key, parse_multikey
from sync.config import Settings
from sync.database import IngestConnection, refusals
from sync.errors import BadInput, ConfigurationError, IdentityError, ProtocolError, UsageError
from sync.http import HttpClient
from sync.reconciler import TOO_MANY_COLLECTIONS, FetchedRepo, Reconciled, reconcile
from sync.resolver import Resolver
from sync.sessions import ingest_session
from sync.triage import now_us

MAX_DOCUMENT_BYTES = 262_144
BUSY_ATTEMPTS = 50
BUSY_RETRY_S = 0.1

_CLAIM = "select repo_id, generation, fetch_token, has_records from sync.claim_import($1)"
_RELEASE = "select sync.release_fetch($1, $2, $3)"
_KNOWN = "select signing_key, pds_url, handle from sync.repo_identity(array[$1::text])"
_SET_IDENTITY = "select sync.set_identity($1, $2, $3, $4)"

# What a refused import means, by outcome of sync.reconcile_repos().
_REFUSED = {
    "stale_export": "it is older than what is stored, and a repo never goes back",
    "unsigned": "the repo is tracked and verified; an unsigned file cannot replace that",
    "superseded": "the repo changed its state meanwhile: try again",
    "mismatch": "the tracked collections changed meanwhile: try again",
    "busy": "the repo is being written by somebody else: try again",
    TOO_MANY_COLLECTIONS: "it brings too many new collections: track fewer with a narrower pattern",
}


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key of an import comes from; all unset: the network."""

    signing_key: str | None = None
    document: Path | None = None
    is_unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought."""

    did: str
    rev: str
    trust: str
    outcome: str
    records: int
    created: int
    updated: int
    deleted: int


async def import_repo(settings: Settings, path: Path, *, key_source: KeySource) -> Imported:
    """Verify a CAR file and load it; nothing is written unless all of it is good."""
    if settings.database_url is None:
        raise ConfigurationError("An import needs the URL of a database.")
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    with closing(file):
        did = await asyncio.to_thread(_read_did, file, path)
        key = await _find_key(settings, did, key_source)
        export = await asyncio.to_thread(_verify, file, did, key, settings, path)
        async with ingest_session(settings.database_url, name="import") as conn:
            return await _load(conn, export, key, file)


def _read_did(file: BinaryIO, path: Path) -> str:
    try:
        return read_owner(file)
    except ProtocolError as error:
        raise BadInput(f"{path} is not the CAR file of a repo ({error}).") from error


async def _find_key(settings: Settings, did: str, source: KeySource) -> PublicKey | None:
    """Return the key that must have signed the file; None only for an unsigned import."""
    if source.is_unsigned:
        return None
    if source.signing_key is not None:
        return _parse_key(source.signing_key)
    if source.document is not None:
        text = await asyncio.to_thread(_read_document, source.document, did)
    else:
        text = await _resolve_key(settings, did)
    if text is None:
        raise BadInput(f"The DID document of {did} names no signing key: use --signing-key.")
    return parse_did_key(text)


def _parse_key(text: str) -> PublicKey:
    try:
        return parse_did_key(text) if text.startswith(DID_KEY_PREFIX) else parse_multikey(text)
    except (ProtocolError, ValueError) as error:
        raise UsageError(
            f"{text[:80]!r} is not a signing key: give it as did:key:z… or as z…."
        ) from error


def _read_document(path: Path, did: str) -> str | None:
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise BadInput(f"{path} is too long for a DID document.")
        return parse_did_document(did, path.read_bytes()).signing_key
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    except IdentityError as error:
        raise BadInput(f"{path} is not the DID document of {did} ({error.detail}).") from error


async def _resolve_key(settings: Settings, did: str) -> str | None:
    async with HttpClient(
        user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
    ) as http:
        resolver = Resolver.from_settings(http, settings)
        try:
            return (await resolver.document(did)).signing_key
        except IdentityError as error:
            raise BadInput(
                f"{did} does not resolve ({error}): use --signing-key or a DID document file."
            ) from error
        finally:
            await resolver.aclose()


def _verify(
    file: BinaryIO, did: str, key: PublicKey | None, settings: Settings, path: Path
) -> Export:
    limits = ExportLimits(max_bytes=settings.max_repo_bytes, max_records=settings.max_repo_records)
    try:
        return read_export(file, did, key, now_us=now_us(), limits=limits)
    except ProtocolError as error:
        if error.reason == "bad_signature":
            raise BadInput(f"{path} is not signed by the key of {did}.") from error
        raise BadInput(f"{path} does not verify as the repo of {did} ({error}).") from error


async def _load(
    conn: IngestConnection, export: Export, key: PublicKey | None, file: BinaryIO
) -> Imported:
    did = export.commit.did
    with refusals():
        claim = await conn.fetchrow(_CLAIM, did)
    if claim is None:
        raise BadInput(f"{did} is being fetched right now: try again in a moment.")
    repo = FetchedRepo(
        repo_id=claim["repo_id"],
        did=did,
        generation=claim["generation"],
        fetch_token=claim["fetch_token"],
        has_records=claim["has_records"],
        export=export,
        trust="unsigned" if key is None else "verified",
        file=file,
    )
    try:
        result = await _reconcile(conn, repo)
    except BaseException:
        await conn.execute(_RELEASE, repo.repo_id, repo.generation, repo.fetch_token)
        raise
    if result.outcome in _REFUSED:
        raise BadInput(f"The repo of {did} was not loaded: {_REFUSED[result.outcome]}.")
    if key is not None:
        await _keep_key(conn, did, key)
    return Imported(
        did=did,
        rev=export.commit.rev,
        trust=repo.trust,
        outcome=result.outcome,
        records=len(export.leaves),
        created=result.created,
        updated=result.updated,
        deleted=result.deleted,
    )


async def _reconcile(conn: IngestConnection, repo: FetchedRepo) -> Reconciled:
    for _ in range(BUSY_ATTEMPTS):
        (result,) = await reconcile(conn, [repo])
        if result.outcome == TOO_MANY_COLLECTIONS:
            break
        if result.outcome != "busy":
            return result
        await asyncio.sleep(BUSY_RETRY_S)
    await conn.execute(_RELEASE, repo.repo_id, repo.generation, repo.fetch_token)
    return result


async def _keep_key(conn: IngestConnection, did: str, key: PublicKey) -> None:
    """Remember the key an import was verified with, where the network has not told one."""
    known = await conn.fetchrow(_KNOWN, did)
    if known is not None and known["signing_key"] is None:
        await conn.execute(_SET_IDENTITY, did, known["handle"], known["pds_url"], key.did_key)
