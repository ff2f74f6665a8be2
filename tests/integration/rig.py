"""The whole service in this event loop, between a simulated network and a database of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from sync.atproto.cid import format_cid
from sync.config import Settings
from sync.progress import Progress
from sync.service import run_service
from sync.simnet import Account, Simnet

NOTE = "com.example.note"
LIKE = "com.example.like"
TIMEOUT_S = 60.0
POLL_S = 0.02

Check = Callable[[], Awaitable[Any]]


def note(text: str) -> dict[str, str]:
    """Return a record that says something."""
    return {"$type": NOTE, "text": text}


def settings_for(net: Simnet, database_url: str, folder: Path, **changes: Any) -> Settings:
    """Return the settings of a service that lives on a simulated network."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "relay_url": net.relay_http_url,
        "plc_url": net.plc_url,
        "allow_private_hosts": True,
        "handle_base_urls": tuple(net.pds_urls),
        "spool_dir": folder / "spool",
    }
    return Settings(**(values | changes))


class Rig:
    """A service that tests start and stop, and the database it fills."""

    def __init__(self, net: Simnet, settings: Settings, conn: Any) -> None:
        self.net = net
        self.settings = settings
        self.conn = conn
        self.progress = Progress()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, sources: Sequence[tuple[str, str]] | None = None) -> None:
        """Start the service on the relay, or on other sources."""
        if sources is None:
            sources = [(self.net.relay_url, "relay")]
        self._stop, self.progress = asyncio.Event(), Progress()
        self._task = asyncio.create_task(
            run_service(self.settings, sources=sources, progress=self.progress, stop=self._stop)
        )

    async def stop(self) -> None:
        """Stop the service as SIGTERM does; it must end."""
        task, self._task = self._task, None
        if task is not None:
            self._stop.set()
            async with asyncio.timeout(TIMEOUT_S):
                await task

    async def crash(self) -> None:
        """End the service without a word to anybody."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, check: Check, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait until a check answers with something true; fail if the service fell."""
        deadline = time.monotonic() + timeout_s
        while True:
            result = await check()
            if result:
                return result
            if self._task is not None and self._task.done():
                self._task.result()
                raise AssertionError("the service ended by itself")
            if time.monotonic() > deadline:
                raise AssertionError(f"not in time:\n{await self.describe()}")
            await asyncio.sleep(POLL_S)

    async def track(self, *accounts: Account, collections: Sequence[str] = ()) -> None:
        """Track accounts, as an app does."""
        if collections:
            await self.conn.fetchval("select sync.track_collections($1)", list(collections))
        await self.conn.fetchval("select sync.track_repos($1)", [one.did for one in accounts])

    async def state(self, account: Account) -> str | None:
        """Return the repo's sync state."""
        return await self.conn.fetchval(
            "select sync_state from sync.repo_status where did = $1", account.did
        )

    async def head(self, account: Account) -> str | None:
        """Return the rev the stored repo is at."""
        return await self.conn.fetchval(
            "select rev from sync.repo_status where did = $1", account.did
        )

    async def stored(self, account: Account) -> dict[str, str]:
        """Return path → CID of what apps see."""
        rows = await self.conn.fetch(
            "select collection || '/' || rkey as path, cid from sync.records where did = $1",
            account.did,
        )
        return {row["path"]: row["cid"] for row in rows}

    async def fetched(self, count: int, *, also_by: Sequence["Rig"] = ()) -> None:
        """Wait until so many fetches are counted, which comes after their commit; never more."""

        async def are_counted() -> bool:
            return sum(rig.progress.repos_fetched for rig in (self, *also_by)) >= count

        await self.until(are_counted)
        assert sum(rig.progress.repos_fetched for rig in (self, *also_by)) == count

    async def changes(self, account: Account, *, after: int = 0) -> list[tuple[Any, ...]]:
        """Return (kind, rkey, is_live) of the log after a position."""
        rows = await self.conn.fetch(
            "select kind, rkey, is_live from sync.change_log"
            " where did = $1 and change_id > $2 order by change_id",
            account.did,
            after,
        )
        return [tuple(row) for row in rows]

    async def last_change(self) -> int:
        """Return the highest change id."""
        return int(
            await self.conn.fetchval("select coalesce(max(change_id), 0) from sync.change_log")
        )

    async def problems(self) -> dict[str, int]:
        """Return how often each reason was counted."""
        rows = await self.conn.fetch(
            "select reason, sum(events)::bigint as events from sync.problems group by 1"
        )
        return {row["reason"]: row["events"] for row in rows}

    async def level(self, *accounts: Account) -> None:
        """Wait until the stored repos are what the network holds and no gap is open."""
        for account in accounts:
            await self.until(partial(self.is_level, account))
        await self.until(self.has_no_gap)

    async def has_no_gap(self) -> bool:
        """Tell whether no source has a gap to close."""
        query = "select count(*) from sync.source_status where gap_since is not null"
        return await self.conn.fetchval(query) == 0

    async def is_level(self, account: Account) -> bool:
        """Tell whether a repo is synchronized at the network's rev, with its very records."""
        # In one look, and only of who is shown: an account that comes back is so a moment later.
        query = (
            "select sync_state = 'synchronized' and is_visible and rev = $2"
            " from sync.repo_status where did = $1"
        )
        rev = account.rev
        if not await self.conn.fetchval(query, account.did, rev) or account.rev != rev:
            return False
        expected = {path: format_cid(cid) for path, cid in account.leaves().items()}
        assert await self.stored(account) == expected
        return True

    async def describe(self) -> str:
        """Return what there is to know when a test fails."""
        repos = await self.conn.fetch("select * from sync.repo_status")
        sources = await self.conn.fetch("select * from sync.source_status")
        return "\n".join(
            [
                *(str(dict(row)) for row in (*repos, *sources)),
                str(await self.problems()),
                str(self.progress),
            ]
        )


@asynccontextmanager
async def rig_on(
    net: Simnet, database_url: str, folder: Path, **changes: Any
) -> AsyncIterator[Rig]:
    """Open a rig whose service is stopped at the end."""
    conn = await asyncpg.connect(database_url)
    rig = Rig(net, settings_for(net, database_url, folder, **changes), conn)
    try:
        yield rig
    finally:
        try:
            await rig.crash()
        finally:
            await conn.close()
