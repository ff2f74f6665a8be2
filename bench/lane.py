"""Time verified commits through one lane into PostgreSQL.

The lane is the real one, fed from memory. Its ceiling is the verification alone, on one core.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bench.export import claimed, operate, publish, spooled
from bench.report import Figure
from sync.atproto.frame import CommitMessage, read_frame
from sync.atproto.keys import PublicKey
from sync.atproto.verify import verify_commit
from sync.config import Settings
from sync.database import IngestConnection
from sync.http import HttpClient
from sync.lane import Lane, LaneParts
from sync.progress import Progress, SourceProgress
from sync.reconciler import reconcile
from sync.resolver import Resolver
from sync.sessions import ingest_session
from sync.simnet import World
from sync.simnet.traffic import commit_frames, generate
from sync.staging import LaneClaim
from sync.stream import FrameQueue, StreamState
from sync.triage import now_us
from sync.wakes import Wakes

ACCOUNTS, RECORDS, COMMITS = 200, 500, 20_000
SOURCE = "ws://bench.test"


@dataclass(slots=True)
class _NoReader:
    """Stands where the websocket is: frames come from memory."""

    def drop(self) -> None:
        raise RuntimeError("the benchmark's own frames were refused")


async def lane_throughput(url: str) -> AsyncIterator[Figure]:
    """Load accounts, then time a backlog of commits through the lane."""
    world = World(seed=1, start_us=None)
    accounts = generate(world, ACCOUNTS, RECORDS)
    async with ingest_session(url, name="bench") as conn, ingest_session(url, name="bench") as two:
        await operate(url, "select sync.add_source($1, 'relay')", SOURCE)
        [source] = await conn.fetch("select source_id from sync.enabled_sources()")
        source_id = source["source_id"]
        token = await conn.fetchval("select token from sync.claim_lane($1)", source_id)
        await operate(url, "select sync.track_repos($1)", [account.did for account in accounts])
        for account in accounts:
            await conn.execute(
                "select sync.set_identity($1, null, null, $2)",
                account.did,
                account.repo.key.public.did_key,
            )
        lane = LaneClaim(source_id, 0, token)
        await publish(conn, lane)
        for claim in await claimed(conn):
            account = world.accounts[claim["did"]]
            await reconcile(conn, [spooled(claim, account)])
        start = world.relay.last_seq
        frames = commit_frames(world, COMMITS)
        keys = {account.did: account.repo.key.public for account in accounts}
        ceiling = _verify_only(frames, keys)
        seconds = await _run_lane(conn, two, lane, frames, start=start, last=world.relay.last_seq)
        yield Figure(
            "verified commits through a lane",
            len(frames) / seconds,
            "commits/s",
            ceiling,
            "verification alone, one core",
        )


def _verify_only(frames: list[bytes], keys: dict[str, PublicKey]) -> float:
    started_at = time.perf_counter()
    for frame in frames:
        message = read_frame(frame)
        if isinstance(message, CommitMessage):
            verify_commit(message, keys[message.did], now_us=now_us())
    return len(frames) / (time.perf_counter() - started_at)


async def _run_lane(
    conn: IngestConnection,
    control: IngestConnection,
    claim: LaneClaim,
    frames: list[bytes],
    *,
    start: int,
    last: int,
) -> float:
    settings = Settings(allow_private_hosts=True)
    queue = FrameQueue(max_frames=len(frames) + 1, max_bytes=1 << 40)
    source = SourceProgress(url=SOURCE, kind="relay")
    async with HttpClient(user_agent="bench", allow_private_hosts=True) as http:
        resolver = Resolver.from_settings(http, settings)
        parts = LaneParts(
            claim=claim,
            url=SOURCE,
            is_pds=False,
            settings=settings,
            conn=conn,
            control=control,
            state=StreamState(start),
            queue=queue,
            reader=_NoReader(),
            resolver=resolver,
            progress=Progress(),
            source=source,
            wakes=Wakes(),
            publish=lambda: None,
        )
        for frame in frames:
            await queue.put(frame, connection=queue.connection)
        started_at = time.perf_counter()
        work = asyncio.create_task(Lane(parts).run())
        while source.durable_seq != last:
            if work.done():
                work.result()
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started_at
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await resolver.aclose()
    applied = parts.progress.outcomes.get("applied", 0)
    if applied != len(frames):
        raise RuntimeError(f"only {applied} of {len(frames)} commits were applied")
    return seconds
