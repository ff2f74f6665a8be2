"""Bring verified exports into the database: stage, diff, stage contents, reconcile, commit.

All of it is one transaction on one connection (design §3.3). For repos that have records already
only keys are staged, and contents only where the diff asks for them. Record contents are read
from the spooled export in chunks, so memory does not grow with the repo.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from sync.atproto.export import Export, Leaf
from sync.atproto.records import read_record
from sync.database import IngestConnection
from sync.tracking import CollectionFilter

CHUNK_RECORDS = 500
CHUNK_BYTES = 8 << 20  # of records, which as JSON and rows take a few times as much
# The outcome of a repo that was left as it is, because it brings too many new collections.
TOO_MANY_COLLECTIONS = "too_many_collections"

_INTERN = "select repo_id from sync.intern_collections($1, $2)"
_DIFF = "select repo_id, collection, rkey, cid from sync.diff_repos($1, $2, $3)"
_RECONCILE = (
    "select repo_id, outcome, created, updated, deleted from sync.reconcile_repos($1, $2, $3)"
)
_REPO_COLUMNS = (
    "repo_id",
    "generation",
    "fetch_token",
    "rev",
    "data_cid",
    "commit_block",
    "trust",
)
_RECORD_COLUMNS = (
    "repo_id",
    "collection",
    "rkey",
    "cid",
    "is_whole",
    "value",
    "raw",
    "reason",
)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class FetchedRepo:
    """A claimed repo with its verified export."""

    repo_id: int
    did: str
    generation: int
    fetch_token: int
    has_records: bool
    export: Export
    trust: str
    file: BinaryIO


class Reconciled(NamedTuple):
    """How one repo came out, and what was written."""

    repo_id: int
    outcome: str
    created: int
    updated: int
    deleted: int


class _Staged(NamedTuple):
    """A repo with those of its records that are tracked."""

    repo: FetchedRepo
    leaves: list[Leaf]


async def reconcile(conn: IngestConnection, repos: Sequence[FetchedRepo]) -> list[Reconciled]:
    """Reconcile some repos in one transaction; returns one result a repo.

    One with too many collections is left out: its claim is the caller's to end.
    """
    collections = await CollectionFilter.load(conn)
    staged = [_Staged(repo, await asyncio.to_thread(_select, repo, collections)) for repo in repos]
    crowded = await _intern(conn, staged)
    staged = [item for item in staged if item.repo.repo_id not in crowded]
    declared = (
        [item.repo.repo_id for item in staged],
        [len(item.leaves) for item in staged],
        [item.repo.export.commit.data for item in staged],
    )
    async with conn.transaction():
        await _copy(conn, "stage_repos", _REPO_COLUMNS, [_repo_row(item.repo) for item in staged])
        await _copy(conn, "stage_records", _RECORD_COLUMNS, _records(staged))
        if any(item.repo.has_records for item in staged):
            needed = await conn.fetch(_DIFF, *declared)
            await _copy_needed(conn, staged, needed)
        results = await conn.fetch(_RECONCILE, *declared)
    refused = [Reconciled(repo_id, TOO_MANY_COLLECTIONS, 0, 0, 0) for repo_id in crowded]
    return refused + [Reconciled(*row) for row in results]


async def _intern(conn: IngestConnection, staged: Sequence[_Staged]) -> set[int]:
    """Give all collections their ids, which are shared by everybody, in a transaction of its own.

    Returns the repos that would bring too many.
    """
    pairs = [
        (item.repo.repo_id, nsid)
        for item in staged
        for nsid in sorted({leaf.collection for leaf in item.leaves})
    ]
    repo_ids, nsids = [repo_id for repo_id, _ in pairs], [nsid for _, nsid in pairs]
    return {row["repo_id"] for row in await conn.fetch(_INTERN, repo_ids, nsids)}


def _select(repo: FetchedRepo, collections: CollectionFilter) -> list[Leaf]:
    """Return the records whose collection is tracked."""
    return [leaf for leaf in repo.export.leaves if collections.is_tracked(leaf.collection)]


async def _copy_needed(
    conn: IngestConnection, staged: Sequence[_Staged], needed: Sequence[Any]
) -> None:
    """COPY the contents the diff asked for."""
    by_repo: dict[int, list[Leaf]] = {}
    for row in needed:
        leaf = Leaf(row["collection"], row["rkey"], row["cid"])
        by_repo.setdefault(row["repo_id"], []).append(leaf)

    async def rows() -> AsyncIterator[Row]:
        for item in staged:
            async for row in _contents(item.repo, by_repo.get(item.repo.repo_id, ())):
                yield row

    if by_repo:
        await _copy(conn, "stage_records", _RECORD_COLUMNS, rows())


async def _copy(conn: IngestConnection, table: str, columns: Sequence[str], rows: Any) -> None:
    await conn.copy_records_to_table(
        table, schema_name="pg_temp", columns=list(columns), records=rows
    )


def _repo_row(repo: FetchedRepo) -> Row:
    commit = repo.export.commit
    return (
        repo.repo_id,
        repo.generation,
        repo.fetch_token,
        commit.rev,
        commit.data,
        commit.block,
        repo.trust,
    )


async def _records(staged: Sequence[_Staged]) -> AsyncIterator[Row]:
    """Yield the keys of repos that have records, and the whole records of those that do not.

    One COPY for all: each one costs round trips, and most repos are small.
    """
    for item in staged:
        rows = _keys(item) if item.repo.has_records else _contents(item.repo, item.leaves)
        async for row in rows:
            yield row


async def _keys(item: _Staged) -> AsyncIterator[Row]:
    """Yield keys and CIDs; the loop gets a turn between chunks."""
    repo_id = item.repo.repo_id
    leaves = iter(item.leaves)
    while chunk := list(islice(leaves, CHUNK_RECORDS)):
        await asyncio.sleep(0)
        for leaf in chunk:
            yield (repo_id, leaf.collection, leaf.rkey, leaf.cid, False, None, None, None)


async def _contents(repo: FetchedRepo, leaves: Sequence[Leaf]) -> AsyncIterator[Row]:
    """Yield records with their contents, decoded in a thread chunk by chunk."""
    for chunk in chunks_of(repo.export, leaves):
        for row in await asyncio.to_thread(_read_chunk, repo, chunk):
            yield row


def chunks_of(export: Export, leaves: Iterable[Leaf]) -> Iterator[list[Leaf]]:
    """Divide records into lists that are small in number and in bytes."""
    chunk: list[Leaf] = []
    size_bytes = 0
    for leaf in leaves:
        chunk.append(leaf)
        size_bytes += export.block_bytes(leaf.cid)
        if len(chunk) >= CHUNK_RECORDS or size_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


def _read_chunk(repo: FetchedRepo, leaves: Sequence[Leaf]) -> list[Row]:
    """Read and judge the blocks of some records."""
    rows: list[Row] = []
    for collection, rkey, cid in leaves:
        block = repo.export.read_block(cid)
        value, raw, reason = (None, None, "too_big") if block is None else read_record(block)
        rows.append((repo.repo_id, collection, rkey, cid, True, value, raw, reason))
    return rows
