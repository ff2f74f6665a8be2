"""The stage of the demo: a simulated network, the service that syncs it, and eyes on both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.atproto.cid import format_cid
from sync.cli.demo.fold import Fold, Key
from sync.config import Settings
from sync.database import IngestConnection, connect
from sync.errors import StandpipeError
from sync.progress import Progress
from sync.service import run_service
from sync.simnet import Account, Simnet
from sync.verifier import verify_repo

WAIT_TIMEOUT_S = 60.0
POLL_S = 0.05
CONSUMER = "demo"
SEED = 7
PDS_COUNT = 2

_HEADS = """
    select did, rev, synchronized_at from sync.repo_status
     where sync_state = 'synchronized' and rev is not null
"""
_RECORDS = "select did, collection, rkey, cid from sync.records"
_CHANGES = "select * from sync.read_changes($1, 10000)"
_LOG_HEAD = "select coalesce(max(change_id), 0) from sync.change_log"
_LOGGED = """
    select kind, did, collection, rkey, is_live from sync.change_log
     where change_id > $1 and kind in ('create', 'update', 'delete') order by change_id
"""


@dataclass(slots=True)
class Stage:
    """A running network, a running service, and a connection that looks and operates."""

    net: Simnet
    settings: Settings
    conn: IngestConnection
    progress: Progress
    service: asyncio.Task[None]
    fold: Fold = field(default_factory=Fold)

    async def wait_until(self, is_reached: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Wait for something the service does, in bounded time."""
        deadline = asyncio.get_running_loop().time() + WAIT_TIMEOUT_S
        while not await is_reached():
            if self.service.done():
                await self.service
                raise StandpipeError("The service ended before the demo did.")
            if asyncio.get_running_loop().time() > deadline:
                raise StandpipeError(
                    f"The service did not get there in {WAIT_TIMEOUT_S:.0f} s: run the demo again "
                    "on a machine that is less busy, or report it."
                )
            await asyncio.sleep(POLL_S)

    async def wait_until_level(self, accounts: Iterable[Account]) -> None:
        """Wait until every repo is synchronized at the rev its account has now."""
        wanted = {account.did: account.rev for account in accounts}

        async def is_level() -> bool:
            rows = await self.conn.fetch(_HEADS)
            heads = {row["did"]: row["rev"] for row in rows}
            return all(heads.get(did) == rev for did, rev in wanted.items())

        await self.wait_until(is_level)

    async def resync(self, accounts: Iterable[Account]) -> None:
        """Fetch repos again by hand, and wait until that is done."""
        dids = [account.did for account in accounts]
        before = await self._synchronized_at()
        await self.conn.execute("select sync.resync_repos($1)", dids)

        async def is_done() -> bool:
            now = await self._synchronized_at()
            return all(did in now and now[did] > before[did] for did in dids)

        await self.wait_until(is_done)

    async def _synchronized_at(self) -> dict[str, Any]:
        return {row["did"]: row["synchronized_at"] for row in await self.conn.fetch(_HEADS)}

    async def stored(self) -> dict[Key, str]:
        """Return what apps see: every key with its CID."""
        rows = await self.conn.fetch(_RECORDS)
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}

    def signed(self) -> dict[Key, str]:
        """Return what the accounts signed, straight from the network's own memory."""
        return {
            (account.did, *_split(path)): format_cid(cid)
            for account in self.net.world.accounts.values()
            for path, cid in account.leaves().items()
        }

    async def read_on(self) -> int:
        """Let the reader of the log go on to its end; returns how many changes it was given."""
        before = self.fold.changes
        while rows := await self.conn.fetch(_CHANGES, CONSUMER):
            for row in rows:
                self.fold.apply(dict(row))
        return self.fold.changes - before

    async def log_head(self) -> int:
        """Return the id of the last change."""
        head: int = await self.conn.fetchval(_LOG_HEAD)
        return head

    async def logged_since(self, change_id: int) -> list[dict[str, Any]]:
        """Return the creates, updates and deletes that were logged after a change."""
        return [dict(row) for row in await self.conn.fetch(_LOGGED, change_id)]

    async def proofs(self) -> dict[str, int]:
        """Verify every repo; returns how many there are of each answer."""
        answers: dict[str, int] = {}
        for did in self.net.world.accounts:
            verdict = await verify_repo(self.settings, did)
            answers[verdict.summary] = answers.get(verdict.summary, 0) + 1
        return answers


@asynccontextmanager
async def open_stage(folder: Path, url: str) -> AsyncIterator[Stage]:
    """Start the network and make the service ready; it works on nothing but the two."""
    async with Simnet(seed=SEED, pds_count=PDS_COUNT) as net:
        settings = Settings(
            database_url=url,
            data_dir=folder,
            relay_url=net.relay_http_url,
            plc_url=net.plc_url,
            handle_base_urls=tuple(net.pds_urls),
            allow_private_hosts=True,
            fetches_per_host=8,
        )
        progress, stop = Progress(), asyncio.Event()
        conn = await connect(url, name="standpipe demo")
        try:
            await conn.execute("select sync.create_consumer($1)", CONSUMER)
            service = asyncio.create_task(
                run_service(
                    settings,
                    sources=[(settings.relay_url, "relay")],
                    progress=progress,
                    stop=stop,
                )
            )
            try:
                yield Stage(net, settings, conn, progress, service)
            finally:
                stop.set()
                await asyncio.gather(service, return_exceptions=True)
        finally:
            await conn.close()


def _split(path: str) -> tuple[str, str]:
    collection, _, rkey = path.partition("/")
    return collection, rkey
