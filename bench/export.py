"""Time the way from a verified export to stored records, first load and resync.

Ceilings: reading and verifying the export alone, and the plain SQL that moves the same rows.
"""

import io
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from bench.report import Figure
from sync.atproto.export import ExportLimits, read_export
from sync.reconciler import FetchedRepo, reconcile
from sync.sessions import ingest_session
from sync.simnet import Account, World, Write
from sync.simnet.traffic import POST, generate, make_record
from sync.staging import LaneClaim
from sync.triage import now_us

LIMITS = ExportLimits(max_bytes=1 << 31, max_records=10_000_000)
SMALL_REPOS, SMALL_RECORDS = 400, 250
LARGE_RECORDS = 50_000


async def claimed(conn: Any) -> list[Any]:
    """Claim every repo that waits for a fetch."""
    rows: list[Any] = []
    while batch := await conn.fetch("select * from sync.claim_fetches(1000, 100000)"):
        rows += batch
    return rows


def spooled(claim: Any, account: Account) -> FetchedRepo:
    """Read and verify an account's export as the fetcher does after its download."""
    file = io.BytesIO(account.repo.export())
    export = read_export(file, account.did, account.repo.key.public, now_us=now_us(), limits=LIMITS)
    return FetchedRepo(
        repo_id=claim["repo_id"],
        did=account.did,
        generation=claim["generation"],
        fetch_token=claim["fetch_token"],
        has_records=claim["has_records"],
        export=export,
        trust="verified",
        file=file,
    )


async def first_load(url: str, folder: Path) -> AsyncIterator[Figure]:
    """Load many small repos in groups; ceilings: verification, and plain INSERT … SELECT."""
    world = World(seed=2, start_us=None)
    accounts = generate(world, SMALL_REPOS, SMALL_RECORDS)
    count = SMALL_REPOS * SMALL_RECORDS
    async with ingest_session(url, name="bench") as conn:
        await _track(url, conn, accounts)
        exports = {account.did: account.repo.export() for account in accounts}
        started_at = time.perf_counter()
        for account in accounts:
            read_export(
                io.BytesIO(exports[account.did]),
                account.did,
                account.repo.key.public,
                now_us=now_us(),
                limits=LIMITS,
            )
        verified = count / (time.perf_counter() - started_at)
        claims = await claimed(conn)
        repos = [spooled(claim, world.accounts[claim["did"]]) for claim in claims]
        started_at = time.perf_counter()
        for first in range(0, len(repos), 100):
            results = await reconcile(conn, repos[first : first + 100])
            assert all(result.outcome == "synchronized" for result in results)
        stored = count / (time.perf_counter() - started_at)
    whole = 1 / (1 / verified + 1 / stored)
    plain = await _plain_insert(url, count)
    yield Figure(
        "first load: decode, stage, reconcile",
        stored,
        "records/s",
        plain,
        "INSERT … SELECT of the same rows",
    )
    yield Figure(
        "first load with verification, one process",
        whole,
        "records/s",
        verified,
        "verification of the exports alone",
    )


async def resync(url: str, folder: Path) -> AsyncIterator[Figure]:
    """Resync one large repo of which 1 % changed; the ceiling is its verification alone."""
    world = World(seed=3, start_us=None)
    account = generate(world, 1, LARGE_RECORDS)[0]
    async with ingest_session(url, name="bench") as conn:
        await _track(url, conn, [account])
        [claim] = await claimed(conn)
        await reconcile(conn, [spooled(claim, account)])
        _change(world, account, LARGE_RECORDS // 100)
        await operate(url, "select sync.resync_repos($1)", [account.did])
        [claim] = await claimed(conn)
        started_at = time.perf_counter()
        repo = spooled(claim, account)
        verified_s = time.perf_counter() - started_at
        [result] = await reconcile(conn, [repo])
        seconds = time.perf_counter() - started_at
        assert (result.updated, result.deleted, result.created) == (
            LARGE_RECORDS // 300,
            LARGE_RECORDS // 300,
            LARGE_RECORDS // 300,
        ), result
    yield Figure(
        f"resync of {LARGE_RECORDS:,} records, 1 % changed",
        seconds,
        "s",
        verified_s,
        "verification of the export alone",
    )
    yield Figure(
        "  of which stage, diff, apply",
        seconds - verified_s,
        "s",
        LARGE_RECORDS / 847_000,
        "the bare diff at 847 k rows/s",
    )


def _change(world: World, account: Account, changes: int) -> None:
    """Update, delete and create a third each, in commits of at most 200 operations."""
    rng = random.Random(4)
    third = changes // 3
    posts = [path.partition("/") for path in account.leaves() if path.startswith(POST)]
    chosen = rng.sample(posts, 2 * third)
    writes = [Write.update(c, k, make_record(rng, POST)) for c, _, k in chosen[:third]]
    writes += [Write.delete(c, k) for c, _, k in chosen[third:]]
    writes += [Write.create(POST, f"new-{n}", make_record(rng, POST)) for n in range(third)]
    for first in range(0, len(writes), 200):
        account.apply_writes(writes[first : first + 200])


async def operate(url: str, query: str, *args: object) -> None:
    """Call a function as an operator would."""
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(query, *args)
    finally:
        await conn.close()


async def _track(url: str, conn: Any, accounts: list[Account]) -> None:
    await operate(url, "select sync.track_repos($1)", [account.did for account in accounts])
    for source in await conn.fetch("select source_id from sync.enabled_sources()"):
        token = await conn.fetchval("select token from sync.claim_lane($1)", source["source_id"])
        await publish(conn, LaneClaim(source["source_id"], 0, token))


async def publish(conn: Any, lane: LaneClaim) -> None:
    """Tell as a lane that the present filters are in use."""
    async with conn.transaction():
        await conn.fetch(
            "select * from sync.apply_events($1, $2, $3, 0, sync.filter_generation())", *lane
        )


async def _plain_insert(url: str, count: int) -> float:
    """Insert as many rows of the same shape from a temporary table, key included."""
    conn = await asyncpg.connect(url)
    try:
        value = json.dumps({"$type": POST, "text": "x" * 120, "langs": ["en"]})
        await conn.execute(
            "create temporary table plain (like sync.stored_records including all);"
            "create temporary table source as select * from plain with no data"
        )
        rows = [
            (1 + n // 250, 1, f"3k{n:011d}", b"\x01" * 36, "3kaaaaaaaaaaa", value, None, None, None)
            for n in range(count)
        ]
        await conn.copy_records_to_table("source", schema_name="pg_temp", records=rows)
        started_at = time.perf_counter()
        await conn.execute(
            "create table public.bench_plain (like sync.stored_records including all)"
        )
        await conn.execute(
            "insert into public.bench_plain select repo_id, collection_id, rkey, cid, rev, value,"
            " raw, reason, now() from source"
        )
        seconds = time.perf_counter() - started_at
        await conn.execute("drop table public.bench_plain")
    finally:
        await conn.close()
    return count / seconds
