"""Prove that a stored repo is what its account signed (`standpipe verify`).

Every record's CID is derived again from the stored JSON with another codec than ingest uses, the
tree is rebuilt from these CIDs, and its root must be the one in the signed commit. Where only
some collections are stored the tree cannot be rebuilt from them: then the repo's nodes are
fetched, proven against the same signed root, and the tracked leaves compared.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, cast

from sync.atproto.cid import cid_for, format_cid, parse_cid
from sync.atproto.commit import check_signature, read_commit
from sync.atproto.export import Export, ExportLimits, read_export
from sync.atproto.keys import PublicKey, parse_did_key
from sync.atproto.mst import build
from sync.atproto.records import second_codec_block
from sync.config import Settings
from sync.database import IngestConnection, connect
from sync.download import FetchError, HostHealth, download_repo
from sync.errors import (
    BadInput,
    ConfigurationError,
    IdentityError,
    ProtocolError,
    UpstreamUnavailable,
    UsageError,
)
from sync.http import HttpClient
from sync.identities import ask_status
from sync.resolver import Resolver
from sync.tracking import CollectionFilter
from sync.triage import now_us

Proof = Literal["whole", "filtered", "incomplete", "failed"]

CHUNK_ROWS = 1_000
MAX_FAULTS = 20
# A repo that commits while it is compared has to be caught between two commits.
ATTEMPTS = 20
RETRY_S = 0.5
MEMORY_SPOOL_BYTES = 1 << 20

_PROOF = (
    "select rev, data_cid, commit_block, signing_key, pds_url, trust, sync_state, patterns "
    "from sync.repo_proof($1)"
)
_PDS = "select pds_url from sync.repo_proof($1)"
_REV = "select rev from sync.repo_status where did = $1"
_IS_VISIBLE = "select is_visible from sync.repo_status where did = $1"
_RECORDS = "select collection, rkey, cid, value, raw, reason from sync.records where did = $1"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was proven about a repo; `skipped` counts leaves whose contents nobody can prove."""

    did: str
    rev: str
    proof: Proof
    trust: str
    records: int
    skipped: int
    faults: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Return the proof as one word, with the number of skipped leaves where there are any."""
        return f"incomplete: {self.skipped}" if self.proof == "incomplete" else self.proof


@dataclass(slots=True)
class _Snapshot:
    """A stored repo at one moment, checked as far as that goes without the network."""

    rev: str
    data_cid: bytes
    key: PublicKey | None
    pds_url: str | None
    trust: str
    collections: CollectionFilter
    leaves: dict[bytes, bytes] = field(default_factory=dict)
    unproven: int = 0
    faults: list[str] = field(default_factory=list)

    def blame(self, text: str) -> None:
        """Add a fault to the report, which stays short even when everything is wrong."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)


async def find_newer(settings: Settings, did: str) -> str | None:
    """Ask the PDS whether it has a newer rev than is stored, and give that some time to arrive.

    Returns the rev that does not come; None when the stored one is the latest. Raises
    `UpstreamUnavailable` when the PDS does not say.
    """
    if settings.database_url is None:
        raise ConfigurationError("A verification needs the URL of a database.")
    conn = await connect(settings.database_url, name="standpipe verify")
    try:
        async with HttpClient(
            user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
        ) as http:
            newer: str | None = None
            for _ in range(ATTEMPTS):
                pds_url = await conn.fetchval(_PDS, did)
                status = None if pds_url is None else await ask_status(http, pds_url, did)
                if status is None or status.rev is None:
                    raise UpstreamUnavailable(f"The PDS of {did} does not tell its rev.")
                stored = await conn.fetchval(_REV, did)
                if stored is not None and stored >= status.rev:
                    return None
                newer = status.rev
                await asyncio.sleep(RETRY_S)
            return newer
    finally:
        await conn.close()


async def verify_repo(settings: Settings, did: str) -> Verdict:
    """Prove a stored repo; raises only when it cannot be judged at all."""
    if settings.database_url is None:
        raise ConfigurationError("A verification needs the URL of a database.")
    conn = await connect(settings.database_url, name="standpipe verify")
    try:
        for _ in range(ATTEMPTS):
            snapshot = await _read_snapshot(conn, did)
            if snapshot.faults or await _is_whole(snapshot):
                return _verdict(did, snapshot, skipped=snapshot.unproven, proof="whole")
            export = await _fetch(settings, did, snapshot)
            if export.commit.data == snapshot.data_cid:
                return _compare(did, snapshot, export)
            await asyncio.sleep(RETRY_S)
    finally:
        await conn.close()
    raise UpstreamUnavailable(
        f"The repo of {did} at its PDS is not at the stored rev {snapshot.rev}: "
        "wait until it is synchronized, then verify again."
    )


async def _read_snapshot(conn: IngestConnection, did: str) -> _Snapshot:
    """Read head and records at one moment and check what needs no network."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        row = await conn.fetchrow(_PROOF, did)
        if row is None:
            raise UsageError(f"{did} is not tracked: track it first, or import its CAR file.")
        if row["rev"] is None:
            raise UsageError(f"{did} is not loaded yet ({row['sync_state']}): wait for its fetch.")
        if not await conn.fetchval(_IS_VISIBLE, did):
            raise UsageError(f"{did} is not active, so its records are hidden: nothing to verify.")
        snapshot = _check_head(did, row)
        rows: list[Any] = []
        async for record in conn.cursor(_RECORDS, did, prefetch=CHUNK_ROWS):
            rows.append(record)
            if len(rows) == CHUNK_ROWS:
                await asyncio.to_thread(_check_records, snapshot, rows)
                rows = []
        await asyncio.to_thread(_check_records, snapshot, rows)
    return snapshot


def _check_head(did: str, row: Any) -> _Snapshot:
    """Check the stored commit: its fields, its root, its signature."""
    key = None if row["signing_key"] is None else parse_did_key(row["signing_key"])
    snapshot = _Snapshot(
        rev=row["rev"],
        data_cid=row["data_cid"],
        key=key,
        pds_url=row["pds_url"],
        trust=row["trust"],
        collections=CollectionFilter(row["patterns"]),
    )
    try:
        commit = read_commit(row["commit_block"])
    except ProtocolError as error:
        snapshot.blame(f"the stored commit cannot be read ({error})")
        return snapshot
    if (commit.did, commit.rev, commit.data) != (did, row["rev"], row["data_cid"]):
        snapshot.blame("the stored head is not that of the stored commit")
    if row["trust"] == "verified" and (key is None or not check_signature(commit, key)):
        snapshot.blame("the stored commit is not signed by the account's key")
    return snapshot


def _check_records(snapshot: _Snapshot, rows: Sequence[Any]) -> None:
    """Derive the CID of each record from what is stored of it."""
    for row in rows:
        path = f"{row['collection']}/{row['rkey']}"
        cid = parse_cid(row["cid"])
        snapshot.leaves[path.encode()] = cid
        if row["value"] is not None:
            try:
                derived = cid_for(second_codec_block(json.loads(row["value"])))
            except ProtocolError as error:
                snapshot.blame(f"{path}: {error}")
                continue
        elif row["raw"] is not None:
            derived = cid_for(row["raw"])
        else:
            snapshot.unproven += 1  # too big to be stored: only its CID is known
            continue
        if derived != cid:
            snapshot.blame(f"{path}: the stored record is not the one that was signed")


async def _is_whole(snapshot: _Snapshot) -> bool:
    """Rebuild the tree from the stored records alone."""
    root, _ = await asyncio.to_thread(build, snapshot.leaves)
    return root == snapshot.data_cid


async def _fetch(settings: Settings, did: str, snapshot: _Snapshot) -> Export:
    """Fetch the repo and verify it as a fetch would; of the result only the leaves are used."""
    async with HttpClient(
        user_agent=settings.user_agent, allow_private_hosts=settings.allow_private_hosts
    ) as http:
        resolver = Resolver.from_settings(http, settings)
        try:
            pds_url = (await resolver.document(did)).pds_url or snapshot.pds_url
        except IdentityError:
            pds_url = snapshot.pds_url
        finally:
            await resolver.aclose()
        if pds_url is None:
            raise BadInput(f"{did} has no PDS to compare the stored records with.")
        try:
            with tempfile.SpooledTemporaryFile(max_size=MEMORY_SPOOL_BYTES) as spool:
                file = cast("BinaryIO", spool)
                return await _download(settings, http, pds_url, did, snapshot.key, file)
        except FetchError as error:
            raise UpstreamUnavailable(
                f"Only some of the repo is stored, and {pds_url} does not serve the rest ({error})."
            ) from error
        except ProtocolError as error:
            raise BadInput(f"The export of {did} at {pds_url} is no proof ({error}).") from error


async def _download(
    settings: Settings,
    http: HttpClient,
    pds_url: str,
    did: str,
    key: PublicKey | None,
    file: BinaryIO,
) -> Export:
    await download_repo(
        http,
        pds_url,
        did,
        file,
        max_bytes=settings.max_repo_bytes,
        timeout_s=settings.fetch_timeout_s,
        health=HostHealth(),
    )
    limits = ExportLimits(max_bytes=settings.max_repo_bytes, max_records=settings.max_repo_records)
    return await asyncio.to_thread(read_export, file, did, key, now_us=now_us(), limits=limits)


def _compare(did: str, snapshot: _Snapshot, export: Export) -> Verdict:
    """Compare the tracked leaves of a proven tree with what is stored."""
    expected = {
        f"{leaf.collection}/{leaf.rkey}".encode(): leaf.cid
        for leaf in export.leaves
        if snapshot.collections.is_tracked(leaf.collection)
    }
    for path in sorted(expected.keys() | snapshot.leaves.keys()):
        wanted, found = expected.get(path), snapshot.leaves.get(path)
        if wanted == found:
            continue
        if found is None:
            snapshot.blame(f"{path.decode()}: signed, but not stored")
        elif wanted is None:
            snapshot.blame(f"{path.decode()}: stored, but not signed")
        else:
            snapshot.blame(f"{path.decode()}: stored is {format_cid(found)}, another was signed")
    skipped = export.skipped.total() + snapshot.unproven
    return _verdict(did, snapshot, skipped=skipped, proof="filtered")


def _verdict(did: str, snapshot: _Snapshot, *, skipped: int, proof: Proof) -> Verdict:
    if snapshot.faults:
        proof = "failed"
    elif skipped:
        proof = "incomplete"
    return Verdict(
        did=did,
        rev=snapshot.rev,
        proof=proof,
        trust=snapshot.trust,
        records=len(snapshot.leaves),
        skipped=skipped,
        faults=tuple(snapshot.faults),
    )
