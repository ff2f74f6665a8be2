"""An honest network, a service that keeps being killed, and a reader of its log."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sync.atproto.cid import format_cid
from sync.cli.demo.fold import Fold, Key
from sync.database import IngestConnection, connect
from sync.simnet import Account, Simnet
from sync.simnet.traffic import POST, PROFILE, Traffic, generate
from tests.acceptance.commands import PROGRAM, clean_environment

ACCOUNTS = 8
RECORDS = 120
EVIDENCE_TIMEOUT_S = 60.0
CONVERGE_TIMEOUT_S = 60.0
POLL_S = 0.01
LOG_END_BYTES = 6_000

LANE = """
    select application_name from pg_stat_activity
     where datname = current_database() and application_name like 'standpipe lane %' limit 1
"""
SESSIONS = """
    select count(*) from pg_stat_activity
     where datname = current_database() and application_name like 'standpipe %'
"""
# From the tables: what a view calls would count as called by the service.
HEADS = """
    select r.did, h.rev from sync.repos r join sync.heads h using (repo_id)
     where r.sync_state = 'synchronized' and r.is_active and r.tracked_by is not null
"""
RECORDS_QUERY = "select did, collection, rkey, cid from sync.records"
LIVE_CHANGE = ("did", "rev", "collection", "rkey", "kind", "cid")
STATES = """
    select r.did, r.sync_state, r.is_active, r.account_status, h.rev, h.seen_rev, r.attempts,
           r.next_fetch_at::text, r.rejected_at::text, r.error
      from sync.repos r join sync.heads h using (repo_id)
"""


@dataclass(slots=True)
class Kills:
    """What there was to see at each kill."""

    seed: int
    total: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, evidence: str) -> None:
        self.total += 1
        self.kinds[kind] += 1
        print(f"kill {self.total} (seed {self.seed}): {kind}: {evidence}", flush=True)


class Lab:
    """The service as a user starts it, between a network and a database."""

    def __init__(
        self, net: Simnet, url: str, conn: IngestConnection, folder: Path, seed: int
    ) -> None:
        self.net = net
        self.url = url
        self.service_url = url
        self.conn = conn
        self.rng = random.Random(seed)
        self.accounts = self.make_accounts()
        self.traffic = Traffic(net.world, seed=seed)
        self.kills = Kills(seed)
        self.fold = Fold()
        self.told: Counter[tuple[Any, ...]] = Counter()
        self._log = folder / "service.log"
        self._process: asyncio.subprocess.Process | None = None

    def make_accounts(self) -> list[Account]:
        """Return the accounts that are tracked from the start."""
        return generate(self.net.world, ACCOUNTS, RECORDS)

    # The service --------------------------------------------------------------------------------

    async def launch(self, *arguments: str, **settings: str) -> None:
        """Start the service as a user would."""
        environment = clean_environment(
            STANDPIPE_DATABASE_URL=self.service_url,
            STANDPIPE_DATA_DIR=str(self._log.parent / "data"),
            STANDPIPE_RELAY_URL=self.net.relay_http_url,
            STANDPIPE_PLC_URL=self.net.plc_url,
            STANDPIPE_HANDLE_BASE_URLS=",".join(self.net.pds_urls),
            STANDPIPE_ALLOW_PRIVATE_HOSTS="true",
            **settings,
        )
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM,
                "run",
                *arguments,
                env=environment,
                cwd=self._log.parent,
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        """Start the service, and wait until it works."""
        await self.launch()
        await self.evidence(LANE)

    async def kill(self, kind: str, evidence: str) -> None:
        """Take the service away at this very moment."""
        assert self._process is not None
        assert self._process.returncode is None, self.service_log()
        self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL
        self._process = None
        self.kills.note(kind, evidence)

    async def stop(self) -> None:
        """End the service properly; it has to drain and exit 0."""
        assert self._process is not None
        self._process.terminate()
        assert await asyncio.wait_for(self._process.wait(), CONVERGE_TIMEOUT_S) == 0, (
            self.service_log()
        )
        self._process = None

    async def close(self) -> None:
        """End the service, whatever has become of the test."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def service_log(self, end_bytes: int | None = LOG_END_BYTES) -> str:
        """Return the end of what the service has said; None: all of it."""
        said = self._log.read_bytes()
        return said[-(end_bytes or len(said)) :].decode(errors="replace")

    # Waiting ------------------------------------------------------------------------------------

    async def evidence(self, query: str, *arguments: str) -> str:
        """Wait until the database shows what a kill point is about."""
        deadline = time.monotonic() + EVIDENCE_TIMEOUT_S
        while True:
            found = await self.conn.fetchval(query, *arguments)
            if found is not None:
                return str(found)
            self.require_service()
            in_time = time.monotonic() < deadline
            assert in_time, f"no evidence of {arguments}\n{self.service_log()}"
            await asyncio.sleep(POLL_S)

    def require_service(self) -> None:
        """Fail if the service has ended by itself."""
        assert self._process is not None
        assert self._process.returncode is None, self.service_log()

    async def until(self, check: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        """Wait for something, in bounded time."""
        deadline = time.monotonic() + EVIDENCE_TIMEOUT_S
        while not await check():
            in_time = time.monotonic() < deadline
            assert in_time, f"{otherwise}\n{self.service_log()}"
            await asyncio.sleep(POLL_S)

    async def converge(self) -> None:
        """Wait until every repo is synchronized at its account's rev; then compare."""
        deadline = time.monotonic() + CONVERGE_TIMEOUT_S
        while not await self.is_level():
            self.require_service()
            if time.monotonic() > deadline:
                pytest.fail(f"did not converge: {await self.describe()}\n{self.service_log()}")
            await asyncio.sleep(POLL_S)
        assert await self.stored() == self.signed()
        await self.read_on()
        assert self.fold.complaints == []

    async def is_level(self) -> bool:
        """Tell whether every repo is where its account is."""
        heads = {row["did"]: row["rev"] for row in await self.conn.fetch(HEADS)}
        return heads == {account.did: account.rev for account in self.accounts}

    async def describe(self) -> str:
        """Return what there is to know when it does not converge."""
        return "\n".join(str(tuple(row)) for row in await self.conn.fetch(STATES))

    # What is compared ---------------------------------------------------------------------------

    async def read_on(self) -> None:
        """Read the log as an app does; now and then change one's mind and roll back."""
        while True:
            is_kept = self.rng.random() < 0.7
            transaction = self.conn.transaction()
            await transaction.start()
            rows = await self.conn.fetch("select * from sync.read_changes('kill', 500)")
            if not is_kept:
                await transaction.rollback()
                continue
            await transaction.commit()
            for row in rows:
                self.take(dict(row))
            if not rows:
                return

    def take(self, row: dict[str, Any]) -> None:
        """Follow one row; the same live change is told once."""
        self.fold.apply(row)
        if row["is_live"] and row["kind"] in {"create", "update", "delete"}:
            self.told[tuple(row[name] for name in LIVE_CHANGE)] += 1

    def told_twice(self) -> list[tuple[Any, ...]]:
        """Return the live changes that the reader was told more than once."""
        return [change for change, count in self.told.items() if count > 1]

    async def stored(self) -> dict[Key, str]:
        """Return what apps see."""
        rows = await self.conn.fetch(RECORDS_QUERY)
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}

    def signed(self) -> dict[Key, str]:
        """Return what the accounts have signed."""
        found = {}
        for account in self.accounts:
            for path, cid in account.leaves().items():
                collection, _, rkey = path.partition("/")
                found[account.did, collection, rkey] = format_cid(cid)
        return found

    # What happens on the network ----------------------------------------------------------------

    def write(self, count: int) -> None:
        """Make honest commits of all kinds, anywhere."""
        for _ in range(count):
            self.traffic.step()

    def choose(self) -> Account:
        """Return any account."""
        return self.rng.choice(self.accounts)

    def lose_changes(self, account: Account) -> None:
        """Change a repo in ways that nobody hears of, so that a resync has something to write."""
        self.net.drop_next(2)
        text = f"unheard {self.rng.random()}"
        account.update(PROFILE, {"$type": PROFILE, "displayName": text}, rkey="self")
        account.create(POST, {"$type": POST, "text": text})

    async def resync(self, account: Account) -> None:
        """Have a repo fetched, as an operator does."""
        await self.conn.execute("select sync.resync_repos(array[$1])", account.did)

    @asynccontextmanager
    async def lock(self, statement: str) -> AsyncIterator[None]:
        """Stop whoever comes to a certain point; the lock may go down with the server."""
        conn = await connect(self.url, name="kill test lock")
        try:
            await conn.execute(f"begin; {statement}")
            yield
        finally:
            conn.terminate()
