"""Time the change log and its readers, each beside plain SQL that does the same work.

Events are made up here: what counts is how they are applied, logged and read, not verified.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import asyncpg

from bench.export import claimed, operate, publish
from bench.projections import projection_figures
from bench.report import Figure
from sync.database import IngestConnection
from sync.schema import sql_folder
from sync.sessions import ingest_session
from sync.staging import EventOp, LaneClaim, StagedEvent, apply_events, copy_events

SOURCE = "ws://bench-log.test"
POST = "app.bsky.feed.post"
REPOS = 2_000
BATCHES = {1: 1_000, 10: 5_000, 100: 20_000, 1_000: 50_000}  # events measured at each size
PER_SECOND, PACED_S, PACED_BATCH = 1_000, 10, 10
READ_BATCH = 1_000
TEXT = "lorem ipsum dolor sit amet " * 5
LOADED_GROUPS, LOADED_RECORDS = 22, 250
FIRST_REV, FIRST_DATA = "3kaaaaaaaaaaa", b"\x01\x71\x12\x20" + sha256().digest()

# What read_changes and the walk return, from the tables and without a reader's bookkeeping.
_PLAIN_LOG = """
    select l.log_epoch || '.' || c.change_id, c.kind, r.did, n.nsid, c.rkey, c.rev,
           sync_priv.cid_text(c.cid), c.is_live, c.value, c.raw, c.reason, c.logged_at, c.change_id
      from (select * from sync.changes where change_id > $1 order by change_id limit $2) c
      cross join sync_priv.log_state l
      left join sync.repos r using (repo_id)
      left join sync.collections n using (collection_id)
     order by c.change_id
"""
_PLAIN_RECORDS = """
    select l.log_epoch || '.' || 1, 'create', r.did, n.nsid, s.rkey, s.rev,
           sync_priv.cid_text(s.cid), false, s.value, s.raw, s.reason, s.indexed_at,
           s.repo_id, s.collection_id, s.rkey
      from (select * from sync.stored_records
             where (repo_id, collection_id, rkey) > ($1, $2, $3)
             order by repo_id, collection_id, rkey limit $4) s
      cross join sync_priv.log_state l
      left join sync.repos r using (repo_id)
      left join sync.collections n using (collection_id)
     order by s.repo_id, s.collection_id, s.rkey
"""
_READ = "select * from sync.read_changes($1, $2)"
_PLAIN_APPLY = """
    with event as (
      insert into public.bench_records as r (repo_id, collection_id, rkey, cid, rev, value)
      select e.repo_id, 1, e.rkey, e.cid, e.rev, e.value from pg_temp.bench_events e
          on conflict (repo_id, collection_id, rkey) do update set cid = excluded.cid
      returning r.*
    ), logged as (
      insert into public.bench_changes
      select nextval('public.bench_ids'), 'create', e.repo_id, 1, e.rkey, e.rev, e.cid, true,
             e.value, null, null, now()
        from event e
    )
    select pg_notify('bench', '')
"""


@dataclass(slots=True)
class Feed:
    """Commits of one operation each, chained per repo, as a lane would stage them."""

    dids: list[str]
    count: int = 0
    heads: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def take(self, size: int) -> list[StagedEvent]:
        """Return the next events, a repo after the other."""
        return [self._next() for _ in range(size)]

    def _next(self) -> StagedEvent:
        self.count += 1
        did = self.dids[self.count % len(self.dids)]
        since, before = self.heads[did]
        rev, data = _tid(self.count), _cid(self.count)
        self.heads[did] = rev, data
        value = f'{{"$type": "{POST}", "text": "{self.count} {TEXT}", "langs": ["en"]}}'
        op = EventOp("create", POST, rev, _cid(-self.count), value, None, None)
        return StagedEvent(
            self.count, did, "commit", rev, since, before, data, b"commit", (op,), None
        )


def _cid(number: int) -> bytes:
    return b"\x01\x71\x12\x20" + sha256(str(number).encode()).digest()


def _tid(number: int) -> str:
    digits = "234567abcdefghijklmnopqrstuvwxyz"
    return "3l" + "".join(digits[(number >> (5 * place)) & 31] for place in reversed(range(11)))


async def log_figures(url: str) -> AsyncIterator[Figure]:
    """Apply, log, read, walk; then an app that follows a steady stream."""
    async with ingest_session(url, name="bench") as conn:
        lane, feed = await _prepare(url, conn)
        for size, count in BATCHES.items():
            applied = await _apply_all(conn, lane, feed, size=size, count=count)
            plain = await _apply_plainly(url, size=size, count=count)
            yield Figure(
                f"live apply, {size} a transaction",
                applied,
                "events/s",
                plain,
                "upsert + log + notify in one statement",
            )
        reader = await asyncpg.connect(url)
        try:
            await reader.execute("set role sync_owner")
            await reader.execute("vacuum analyze")
            yield await _walk_figure(reader)
            yield await _read_figure(conn, reader, lane, feed)
        finally:
            await reader.close()
        async for figure in _latency(url, conn, lane, feed):
            yield figure

        async def change(count: int) -> None:
            await _apply_all(conn, lane, feed, size=min(count, 1_000), count=count)

        async for figure in projection_figures(url, change):
            yield figure
        yield await _log_overhead(url, conn, lane)


async def _prepare(url: str, conn: IngestConnection) -> tuple[LaneClaim, Feed]:
    """Track repos and load each with one record, so that it is synchronized."""
    await operate(url, "select sync.add_source($1, 'relay')", SOURCE)
    source_id = await conn.fetchval("select max(source_id) from sync.enabled_sources()")
    token = await conn.fetchval("select token from sync.claim_lane($1)", source_id)
    lane = LaneClaim(source_id, 0, token)
    dids = [f"did:web:bench{n}.test" for n in range(REPOS)]
    await operate(url, "select sync.track_repos($1)", dids)
    await publish(conn, lane)
    for other in await conn.fetch("select source_id, url from sync.enabled_sources()"):
        if other["source_id"] != source_id:
            await operate(url, "select sync.pause_source($1)", other["url"])
    claims = [claim for claim in await claimed(conn) if claim["did"] in set(dids)]
    for first in range(0, len(claims), 100):
        await _load(conn, claims[first : first + 100])
    return lane, Feed(dids, heads=dict.fromkeys(dids, (FIRST_REV, FIRST_DATA)))


async def _load(conn: IngestConnection, claims: list[Any], records: int = 0) -> None:
    """Stage and reconcile repos in one transaction, as the fetcher does."""
    ids = [claim["repo_id"] for claim in claims]
    async with conn.transaction():
        await conn.copy_records_to_table(
            "stage_records",
            schema_name="pg_temp",
            columns=("repo_id", "collection", "rkey", "cid", "is_whole", "value"),
            records=[
                (repo_id, POST, _tid(n), _cid(n), True, f'{{"text": "{n} {TEXT}"}}')
                for repo_id in ids
                for n in range(records)
            ],
        )
        await conn.copy_records_to_table(
            "stage_repos",
            schema_name="pg_temp",
            columns=("repo_id", "generation", "fetch_token", "rev", "data_cid", "commit_block",
                     "trust"),
            records=[
                (c["repo_id"], c["generation"], c["fetch_token"], FIRST_REV, FIRST_DATA, b"commit",
                 "verified")
                for c in claims
            ],
        )  # fmt: skip
        rows = await conn.fetch(
            "select outcome from sync.reconcile_repos($1, $2, $3)",
            ids, [records] * len(ids), [FIRST_DATA] * len(ids),
        )  # fmt: skip
        if {row["outcome"] for row in rows} != {"synchronized"}:
            raise RuntimeError("the benchmark's repos did not load")


async def _apply(
    conn: IngestConnection, lane: LaneClaim, events: list[StagedEvent], sent: dict[str, float]
) -> None:
    """Apply one batch; note for each record when its COMMIT was sent."""
    transaction = conn.transaction()
    await transaction.start()
    await copy_events(conn, events)
    outcomes = await apply_events(conn, lane, cursor=events[-1].seq, generation=1)
    if outcomes != {"applied": len(events)}:
        raise RuntimeError(f"the benchmark's events were not applied: {outcomes}")
    now = time.perf_counter()
    sent.update((event.rev or "", now) for event in events)
    await transaction.commit()


async def _apply_all(
    conn: IngestConnection, lane: LaneClaim, feed: Feed, *, size: int, count: int
) -> float:
    batches = [feed.take(size) for _ in range(count // size)]
    started_at = time.perf_counter()
    for events in batches:
        await _apply(conn, lane, events, {})
    return count / (time.perf_counter() - started_at)


async def _apply_plainly(url: str, *, size: int, count: int) -> float:
    """Write the same rows by COPY and one statement: no chains, no states, no order."""
    conn = await asyncpg.connect(url)
    feed = Feed(["did:web:plain.test"], heads={"did:web:plain.test": ("3k", b"")})
    try:
        await conn.execute("""
            create table public.bench_records (like sync.stored_records including all);
            create table public.bench_changes (like sync.changes including all);
            create sequence public.bench_ids;
            create temporary table bench_events (repo_id bigint, rkey text, cid bytea, rev text,
              value jsonb) on commit delete rows
        """)
        rows = [
            (event.seq % REPOS, op.rkey, op.cid, event.rev, op.value)
            for event in feed.take(count)
            for op in event.ops or ()
        ]
        started_at = time.perf_counter()
        for first in range(0, count, size):
            async with conn.transaction():
                await conn.copy_records_to_table(
                    "bench_events", schema_name="pg_temp", records=rows[first : first + size]
                )
                await conn.execute(_PLAIN_APPLY)
        return count / (time.perf_counter() - started_at)
    finally:
        await conn.execute("""
            drop table if exists public.bench_records, public.bench_changes;
            drop sequence if exists public.bench_ids
        """)
        await conn.close()


async def _drain(conn: Any, name: str) -> float:
    """Read a consumer to the end, a transaction a batch; return rows a second."""
    count, started_at = 0, time.perf_counter()
    while rows := await conn.fetch(_READ, name, READ_BATCH):
        count += len(rows)
    return count / (time.perf_counter() - started_at)


async def _walk_figure(conn: Any) -> Figure:
    await conn.execute("select sync.create_consumer('bench walk')")
    walked = await _drain(conn, "bench walk")
    after: tuple[Any, ...] = (0, 0, "")
    count, started_at = 0, time.perf_counter()
    while rows := await conn.fetch(_PLAIN_RECORDS, *after, READ_BATCH):
        count += len(rows)
        after = tuple(rows[-1])[-3:]
    plain = count / (time.perf_counter() - started_at)
    return Figure("frontier walk", walked, "rows/s", plain, "index scan with the same columns")


async def _read_figure(conn: IngestConnection, reader: Any, lane: LaneClaim, feed: Feed) -> Figure:
    await reader.execute("select sync.create_consumer('bench read', p_start => 'now')")
    start = await reader.fetchval("select max(change_id) from sync.changes")
    await _apply_all(conn, lane, feed, size=1_000, count=100_000)
    read = await _drain(reader, "bench read")
    after, count, started_at = start, 0, time.perf_counter()
    while rows := await reader.fetch(_PLAIN_LOG, after, READ_BATCH):
        count += len(rows)
        after = rows[-1]["change_id"]
    plain = count / (time.perf_counter() - started_at)
    return Figure("read_changes", read, "rows/s", plain, "range scan with the same columns")


async def _latency(
    url: str, conn: IngestConnection, lane: LaneClaim, feed: Feed
) -> AsyncIterator[Figure]:
    """Copy a steady stream into a table of an app: from its COMMIT to the app's."""
    sent: dict[str, float] = {}
    waits: list[float] = []
    app = await asyncpg.connect(url)
    wake = asyncio.Event()
    try:
        await app.execute("create table if not exists public.bench_app (rkey text, value jsonb)")
        await app.execute("select sync.create_consumer('bench app', p_start => 'now')")
        await app.add_listener("sync_changes", lambda *_: wake.set())
        following = asyncio.create_task(_follow(app, wake, sent, waits))
        started_at = time.perf_counter()
        for turn in range(PER_SECOND * PACED_S // PACED_BATCH):
            due = started_at + turn * PACED_BATCH / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await _apply(conn, lane, feed.take(PACED_BATCH), sent)
        rate = PER_SECOND * PACED_S / (time.perf_counter() - started_at)
        await following
    finally:
        await app.execute("drop table public.bench_app")
        await app.close()
    waits.sort()
    base = f"between batches at {rate:,.0f} commits/s"
    for share in (0.5, 0.99):
        yield Figure(
            f"commit to app transaction, p{share * 100:.0f}",
            1_000 * waits[int(len(waits) * share)],
            "ms",
            1_000 * PACED_BATCH / PER_SECOND,
            base,
        )


async def _follow(
    app: Any, wake: asyncio.Event, sent: dict[str, float], waits: list[float]
) -> None:
    """Read until everything that was sent has come."""
    while len(waits) < PER_SECOND * PACED_S:
        wake.clear()
        async with app.transaction():
            rows = await app.fetch("""
                insert into public.bench_app
                select c.rkey, c.value from sync.read_changes('bench app') c where c.kind = 'create'
                returning rkey
            """)
        now = time.perf_counter()
        waits += [now - sent[row["rkey"]] for row in rows]
        if not rows:
            await wake.wait()


async def _log_overhead(url: str, conn: IngestConnection, lane: LaneClaim) -> Figure:
    """First loads as they are, and with nothing that logs; groups in turn, on the same table."""
    dids = [f"did:web:first{n}.test" for n in range(LOADED_GROUPS * 100)]
    await operate(url, "select sync.track_repos($1)", dids)
    await publish(conn, lane)
    claims = [claim for claim in await claimed(conn) if claim["did"].startswith("did:web:first")]
    seconds = {True: 0.0, False: 0.0}
    for group in range(LOADED_GROUPS):
        is_logged = group % 2 == 0
        await operate(url, _logging(is_on=is_logged))
        started_at = time.perf_counter()
        await _load(conn, claims[group * 100 : group * 100 + 100], LOADED_RECORDS)
        if group >= 2:  # the first of each kind warms up
            seconds[is_logged] += time.perf_counter() - started_at
    await operate(url, _logging(is_on=True))
    count = (LOADED_GROUPS - 2) // 2 * 100 * LOADED_RECORDS
    return Figure(
        "first load, logged",
        count / seconds[True],
        "records/s",
        count / seconds[False],
        "the same without triggers and log",
    )


def _logging(*, is_on: bool) -> str:
    """Switch off whatever logs: the triggers, and the snapshot rows of load_first()."""
    text = (sql_folder() / "50_fetch" / "load_first.sql").read_text("utf-8")
    body, _, rest = text.partition("  insert into sync_priv.pending_changes")
    _, _, rest = rest.partition("order by f.repo_id, f.collection_id;")
    word = "enable" if is_on else "disable"
    return f"set role sync_owner; alter table sync.stored_records {word} trigger user;" + (
        text if is_on else body + rest
    )
