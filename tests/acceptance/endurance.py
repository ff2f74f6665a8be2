"""Services under load and in trouble: commits at a rate, an app that reads along, and what hurts.

Everything is real but the network: services are processes, the server is killed with -9, and the
app keeps its place in the same transaction as what it was told. The network and the app live in
this event loop, so that the time from a commit to the app's transaction is measured on one clock.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import asyncpg

from sync.atproto.cid import format_cid
from sync.cli.demo.fold import Fold, Key
from sync.database import connect
from sync.embedded import EmbeddedPostgres
from sync.errors import DatabaseUnavailable
from sync.simnet import Account, Simnet
from sync.simnet.traffic import POST, Traffic
from tests.acceptance.commands import clean_environment

CONVERGE_TIMEOUT_S = 180.0
POLL_S = 0.05
PACE_S = 0.01
MOST_BEHIND_S = 0.1  # what this loop was too busy for is not made up for in a burst
SAMPLE_S = 1.0
# The relay can replay so many events: at 1,000 a second that is half a minute.
WINDOW_EVENTS = 30_000

# The program, with less patience; PROGRAM's own would make every freeze a matter of 15 seconds.
LEASE_S = 3.0
SERVICE = f"""
import sync.sessions
sync.sessions.LEASE_S = {LEASE_S}
from sync.cli import main
main()
"""

PREPARE = """
    create schema app;
    create table app.progress (batches bigint not null);
    insert into app.progress values (0);
    create table app.notes (text text not null);
    select sync.create_consumer('app'), sync.create_consumer('idle')
"""
NEXT = "select kind, did, collection, rkey, rev, cid from sync.read_changes('app', 2000)"
HEADS = "select did, rev from sync.repo_status where sync_state = 'synchronized'"
STORED = "select did, collection, rkey, cid from sync.records"
AT_REST = """
    select (select count(*) from sync.repos where sync_state = 'fetching')
         + (select count(*) from sync_priv.held_events) + (select count(*) from sync_priv.purges)
"""
TOLD_TWICE = """
    select did, rev, collection, rkey, kind, count(*)
      from sync.change_log where is_live and kind in ('create', 'update', 'delete')
     group by did, rev, collection, rkey, kind, cid having count(*) > 1
"""
STATES = """
    select did, sync_state, rev, seen_rev, error from sync.repo_status
     where sync_state <> 'synchronized'
"""
LOST = (
    OSError,
    DatabaseUnavailable,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class ServiceProcess:
    """One `standpipe run` and its lanes, in a process group of their own."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.is_stopped = False
        self._environment = clean_environment(**environment)
        self._folder = folder / name
        self._folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVICE, "run"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill the service, and nothing else: its lanes are to end by themselves."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        """Stop the service and its lanes as a suspended machine is."""
        os.killpg(self.pid, signal.SIGSTOP)
        self.is_stopped = True

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)
        self.is_stopped = False

    def lanes(self) -> list[int]:
        """Return the processes of its lanes."""
        with suppress(OSError):
            path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
            return [int(pid) for pid in path.read_text().split()]
        return []

    def kill_lane(self, rng: random.Random) -> bool:
        """Kill one of its lanes, if there is one."""
        lanes = self.lanes()
        if lanes:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(lanes), signal.SIGKILL)
        return bool(lanes)

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory of the service and of its largest lane."""
        return resident_mb(self.pid), max(map(resident_mb, self.lanes()), default=0.0)

    def end(self) -> None:
        """End it as an operator does; it must exit 0."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(60) == 0, self.said()[-5000:]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def said(self) -> str:
        return (self._folder / "service.log").read_text(errors="replace")


def resident_mb(pid: int) -> float:
    """Return how much memory a process keeps; 0 for one that is gone."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


@dataclass(slots=True)
class Samples:
    """What was measured while it ran."""

    started_at: float = field(default_factory=time.monotonic)
    delays: list[tuple[float, float]] = field(default_factory=list)  # when, s from commit to app
    memory: list[tuple[float, float, float]] = field(default_factory=list)  # when, service, lane

    def table(self, parts: int) -> list[str]:
        """Return a line for each part of the run: delays in ms, memory in MB."""
        length_s = (time.monotonic() - self.started_at) / parts
        lines = []
        for part in range(parts):
            start, end = part * length_s, (part + 1) * length_s
            delays = [delay * 1e3 for at, delay in self.delays if start <= at < end]
            memory = [sample for sample in self.memory if start <= sample[0] < end]
            if len(delays) < 2 or not memory:
                continue
            cuts = quantiles(delays, n=100)
            lines.append(
                f"{start:5.0f}-{end:4.0f} s: {len(delays) / length_s:6.0f} changes/s,"
                f" delay ms p50 {cuts[49]:7.1f} p90 {cuts[89]:8.1f} p99 {cuts[98]:8.1f},"
                f" MB service {median(m[1] for m in memory):5.0f}"
                f" lane {median(m[2] for m in memory):5.0f}"
            )
        return lines


class App:
    """Whoever reads the log, in transactions of his own that may fail at any moment."""

    def __init__(self, url: str, samples: Samples, made_at: dict[str, float]) -> None:
        self.fold = Fold()
        self.losses = 0  # of the connection
        self.unmeasured: set[str] = set()  # repos that have a reason to be late
        self._batches = 0
        self._unsure: list[asyncpg.Record] = []  # read, and nobody said whether it was committed
        self._url = url
        self._samples = samples
        self._made_at = made_at

    async def run(self) -> None:
        """Read for ever, over every loss of the connection."""
        while True:
            try:
                conn = await connect(self._url, name="endurance app")
                try:
                    await self._read_on(conn)
                finally:
                    conn.terminate()
            except LOST:
                self.losses += 1
                await asyncio.sleep(POLL_S)

    async def _read_on(self, conn: asyncpg.Connection) -> None:
        if await conn.fetchval("select batches from app.progress") > self._batches:
            self._follow()
        while True:
            self._unsure = []
            async with conn.transaction():
                self._unsure = await conn.fetch(NEXT)
                if self._unsure:
                    await conn.execute("update app.progress set batches = batches + 1")
            if self._unsure:
                self._follow()
            else:
                await asyncio.sleep(POLL_S / 10)

    def _follow(self) -> None:
        """Take what is known to be committed for good."""
        self._batches += 1
        now = time.monotonic()
        for row in self._unsure:
            self.fold.apply(dict(row))
            made_at = self._made_at.pop(row["rev"] or "", None)
            if made_at is not None and row["did"] not in self.unmeasured:
                self._samples.delays.append((now - self._samples.started_at, now - made_at))


Trouble = Callable[["Endurance"], Awaitable[None]]


class Endurance:
    """A network, services, an app, and the troubles that befall them."""

    def __init__(
        self, net: Simnet, server: EmbeddedPostgres, url: str, folder: Path, *, seed: int
    ) -> None:
        self.net = net
        self.server = server
        self.url = url
        self.rng = random.Random(seed)
        self.services: list[ServiceProcess] = []
        self.troubles: Counter[str] = Counter()
        self.commits = 0
        self.untracked: set[str] = set()
        self.samples = Samples()
        self._folder = folder
        self._made_at: dict[str, float] = {}
        self.app = App(url, self.samples, self._made_at)

    async def prepare(self, *, services: int, lanes: int) -> None:
        """Track every account, start the services and wait until all is fetched."""
        conn = await connect(self.url, name="endurance")
        try:
            await conn.execute(PREPARE)
            await conn.execute("select sync.track_repos($1)", list(self.net.world.accounts))
        finally:
            await conn.close()
        environment = {
            "STANDPIPE_DATABASE_URL": self.url,
            "STANDPIPE_RELAY_URL": self.net.relay_http_url,
            "STANDPIPE_PLC_URL": self.net.plc_url,
            "STANDPIPE_HANDLE_BASE_URLS": ",".join(self.net.pds_urls),
            "STANDPIPE_ALLOW_PRIVATE_HOSTS": "true",
            "STANDPIPE_LANES": str(lanes),
        }
        for number in range(services):
            service = ServiceProcess(f"service{number}", environment, self._folder)
            self.services.append(service)
            service.start()
        await self.converge()

    async def run(
        self, *, commits_per_s: float, seconds: float, troubles: Sequence[Trouble], every_s: float
    ) -> None:
        """Let it all happen for a while, then wait until everything is right again."""
        async with self.busy(commits_per_s=commits_per_s):
            await self._make_trouble(troubles, every_s, until=time.monotonic() + seconds)

    @asynccontextmanager
    async def busy(self, *, commits_per_s: float) -> AsyncIterator[None]:
        """Commit and read until the end of the block; then everything must come right."""
        self.samples.started_at = time.monotonic()
        reading = asyncio.ensure_future(self.app.run())
        watching = asyncio.ensure_future(self._watch())
        committing = asyncio.ensure_future(self._commit(commits_per_s))
        try:
            yield
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            # What was lost is shown by what comes later only.
            for account in self._followed():
                account.create(POST, {"$type": POST, "text": "the last one"})
            self._calm_down()
            await self.converge()
            await self._check_the_app(reading)
        finally:
            for task in (committing, reading, watching):
                task.cancel()
            await asyncio.gather(committing, reading, watching, return_exceptions=True)

    async def _commit(self, commits_per_s: float) -> None:
        traffic = Traffic(self.net.world, seed=self.rng.randrange(2**31))
        relay = self.net.world.relay
        due_at = time.monotonic()
        while True:
            due_at = max(due_at, time.monotonic() - MOST_BEHIND_S)
            while due_at <= time.monotonic():
                due_at += 1 / commits_per_s
                commit = traffic.step()
                self._made_at[commit.rev] = time.monotonic()
                self.commits += 1
                if self.commits % 100 == 0:
                    self.net.forget_history(before=max(1, relay.last_seq - WINDOW_EVENTS))
                    await asyncio.sleep(0)
            await asyncio.sleep(PACE_S)

    async def _make_trouble(
        self, troubles: Sequence[Trouble], every_s: float, *, until: float
    ) -> None:
        waiting: deque[Trouble] = deque()
        # Each befalls them once at least, however long the others take.
        names = {trouble.__name__ for trouble in troubles}
        while time.monotonic() < until or names - self.troubles.keys():
            if not waiting:
                waiting.extend(self.rng.sample(troubles, len(troubles)))
            trouble = waiting.popleft()
            await trouble(self)
            self.troubles[trouble.__name__] += 1
            await asyncio.sleep(every_s * self.rng.uniform(0.5, 1.5))

    async def settle(self) -> None:
        """Wait until the app was told of all that is committed now."""
        deadline, made = time.monotonic() + CONVERGE_TIMEOUT_S, set(self._made_at)
        while made & self._made_at.keys():
            assert time.monotonic() < deadline, f"not told of {made & self._made_at.keys()}"
            await asyncio.sleep(POLL_S)

    def _calm_down(self) -> None:
        self.net.faults.clear()
        for service in self.services:
            if service.is_stopped:
                service.thaw()

    async def _watch(self) -> None:
        while True:
            memory = [service.memory_mb() for service in self.services if not service.is_stopped]
            if memory:
                at = time.monotonic() - self.samples.started_at
                self.samples.memory.append(
                    (at, max(m[0] for m in memory), max(m[1] for m in memory))
                )
            await asyncio.sleep(SAMPLE_S)

    async def converge(self) -> None:
        """Wait until every repo is synchronized at its account's rev, and nothing is left over."""
        deadline = time.monotonic() + CONVERGE_TIMEOUT_S
        while not await self._is_level():
            if time.monotonic() > deadline:
                conn = await connect(self.url, name="endurance")
                states = [tuple(row) for row in await conn.fetch(STATES)]
                await conn.close()
                said = "\n".join(service.said()[-3000:] for service in self.services)
                raise AssertionError(f"did not converge: {states[:20]}\n{said}")
            await asyncio.sleep(0.2)

    async def _is_level(self) -> bool:
        wanted = {account.did: account.rev for account in self._followed()}
        try:
            conn = await connect(self.url, name="endurance")
            try:
                heads = {row["did"]: row["rev"] for row in await conn.fetch(HEADS)}
                return heads == wanted and await conn.fetchval(AT_REST) == 0
            finally:
                conn.terminate()
        except LOST:
            return False

    async def _check_the_app(self, reading: "asyncio.Future[None]") -> None:
        """The app must come to hold the very records, told once, of the honest network."""
        signed = self._signed()
        conn = await connect(self.url, name="endurance")
        try:
            assert {tuple(row)[:3]: row["cid"] for row in await conn.fetch(STORED)} == signed
            deadline = time.monotonic() + CONVERGE_TIMEOUT_S
            while self.app.fold.records != signed and time.monotonic() < deadline:
                assert not reading.done(), reading.result()
                await asyncio.sleep(0.2)
            assert self.app.fold.complaints == []
            assert self.app.fold.records == signed
            assert [tuple(row) for row in await conn.fetch(TOLD_TWICE)] == []
        finally:
            await conn.close()

    def _signed(self) -> dict[Key, str]:
        found = {}
        for account in self._followed():
            for path, cid in account.leaves().items():
                collection, _, rkey = path.partition("/")
                found[account.did, collection, rkey] = format_cid(cid)
        return found

    def _followed(self) -> list[Account]:
        accounts = self.net.world.accounts.values()
        return [account for account in accounts if account.did not in self.untracked]

    def end(self) -> None:
        """End every service as an operator does."""
        for service in self.services:
            service.end()

    def close(self) -> None:
        for service in self.services:
            service.close()

    def report(self, parts: int = 5) -> str:
        """Say what happened, in lines."""
        troubles = ", ".join(f"{count} {name}" for name, count in sorted(self.troubles.items()))
        return "\n".join([f"{self.commits} commits; {troubles}", *self.samples.table(parts)])
