"""Kill -9 of backends, of the whole server and of the service, while an app reads along.

The app folds what it reads into a table and a counter of its own, in the transaction it reads in.
After every kill everything has to start again by itself (the server too, but for its postmaster,
which is started again); at the end the app has exactly the records, was told nothing twice, and no
deadlock happened. Each kill is proven by what the database showed just before.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from sync.database import IngestConnection, connect
from sync.embedded import EmbeddedPostgres
from sync.errors import DatabaseUnavailable
from sync.schema import upgrade
from sync.simnet import Simnet
from tests.acceptance.app_reader import DIFFERENCE, NAME, SETUP, AppReader
from tests.acceptance.crash.lab import SESSIONS, Lab
from tests.postgres import FAST, chosen_binaries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SEEDS = range(12) if "STANDPIPE_TEST_LONG" in os.environ else [1]
LOCK_RECORDS = "lock table sync.stored_records in share mode"
LOCK_HEADS = "lock table sync.heads in share mode"
LOCK_LOG = "select pg_advisory_lock(7261, 1)"
LOCK_APP = "lock table app.records in share mode"
# What a backend of the service does and waits for, as the server itself sees it.
ACTIVITY = r"""
    select format('%s waits for a lock (%s) in %s', application_name, wait_event,
                  coalesce(substring(query from 'sync\.[a-z_]+\('), query))
      from pg_stat_activity
     where datname = current_database() and state = 'active' and wait_event_type = 'Lock'
       and application_name like $1 and query ilike $2
"""
BACKEND = """
    select pid from pg_stat_activity
     where datname = current_database() and application_name like $1
     order by pid limit 1
"""
WORKING = """
    select count(distinct application_name) from pg_stat_activity
     where datname = current_database()
       and (application_name in ('standpipe reconcile', 'standpipe sources')
            or application_name ~ '^standpipe lane [0-9]+[.]0$')
"""
IN_TRANSACTION = """
    select format('%s is %s after %s', application_name, state, query) from pg_stat_activity
     where datname = current_database() and application_name = $1
       and state = 'idle in transaction' and backend_xid is not null
"""
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


class CrashLab(Lab):
    """A lab whose server is killed as well, and whose reader is an app."""

    def __init__(
        self, net: Simnet, url: str, conn: IngestConnection, folder: Path, seed: int
    ) -> None:
        super().__init__(net, url, conn, folder, seed)
        self.server: EmbeddedPostgres | None = None
        self.reader = AppReader(url)
        self.reading: asyncio.Task[None] | None = None

    async def read_on(self) -> None:
        """Wait until the app has read everything; it must have the very records then."""
        await self.until(self._is_level, "the app stays behind")

    async def _is_level(self) -> bool:
        if self.reading is not None and self.reading.done():
            self.reading.result()
        return await self.conn.fetchval(DIFFERENCE) == 0

    async def kill_backend(self, name: str, evidence: str) -> None:
        """Kill one session; PostgreSQL then ends all others and recovers by itself."""
        await self._before()
        os.kill(await self.conn.fetchval(BACKEND, name), signal.SIGKILL)
        await self._after(f"backend of {name.rstrip('%').strip()}", evidence)

    async def kill_postmaster(self, evidence: str) -> None:
        """Kill the server, and start it again."""
        assert self.server is not None
        assert self.server.postmaster_pid is not None
        await self._before()
        os.kill(self.server.postmaster_pid, signal.SIGKILL)
        await asyncio.to_thread(self.server.revive)
        await self._after("postmaster", evidence)

    async def kill_service(self, evidence: str) -> None:
        """Kill the service, and start it again."""
        await self._before()
        await self.kill("service", evidence)
        await self.until(self._is_alone, "sessions of the dead live on")
        await self.start()

    async def _is_alone(self) -> bool:
        return not await self.conn.fetchval(SESSIONS)

    async def recover(self) -> None:
        """Wait until the service reads and fetches again, and the app reads."""
        before = self.reader.commits
        await self.until(self._works, "a part of the service does not return")
        await self.until(partial(self._has_read, before), "the app does not return")
        await self.converge()

    async def _works(self) -> bool:
        return await self.conn.fetchval(WORKING) == 3

    async def _has_read(self, before: int) -> bool:
        return self.reader.commits > before

    async def _before(self) -> None:
        """A crash forgets the statistics: look at them first."""
        assert await self.conn.fetchval(DEADLOCKS) == 0

    async def _after(self, kind: str, evidence: str) -> None:
        self.kills.note(kind, evidence)
        await self.until(self._has_fallen, "the server does not fall")
        await self.until(self._is_back, "the server does not return")

    async def _has_fallen(self) -> bool:
        """Tell whether the postmaster has noticed, and ended all sessions."""
        try:
            await self.conn.fetchval("select true")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.conn.terminate()
            return True
        return False

    async def _is_back(self) -> bool:
        try:
            self.conn = await connect(self.url, name="kill test")
        except DatabaseUnavailable:
            return False
        return True


# Where things are when something is killed -------------------------------------------------------

Kill = Callable[[str], Awaitable[None]]


async def in_apply(lab: CrashLab, kill: Kill) -> None:
    """A lane is inside sync.apply_events()."""
    async with lab.lock(LOCK_RECORDS):
        lab.write(lab.rng.randint(1, 20))
        await kill(await lab.evidence(ACTIVITY, "standpipe lane%", "%apply_events%"))


async def at_the_commit_of_a_batch(lab: CrashLab, kill: Kill) -> None:
    """A lane has sent COMMIT and is being numbered."""
    async with lab.lock(LOCK_LOG):
        lab.write(lab.rng.randint(1, 20))
        await kill(await lab.evidence(ACTIVITY, "standpipe lane%", "commit%"))


async def in_reconcile(lab: CrashLab, kill: Kill) -> None:
    """A repo is being reconciled, its records are written."""
    account = lab.choose()
    lab.lose_changes(account)
    async with lab.lock(LOCK_HEADS):
        await lab.resync(account)
        await kill(await lab.evidence(ACTIVITY, "standpipe reconcile", "%reconcile_repos%"))


async def in_fold(lab: CrashLab, kill: Kill) -> None:
    """The app has read a batch and is writing it."""
    async with lab.lock(LOCK_APP):
        lab.write(10)
        await kill(await lab.evidence(ACTIVITY, NAME, "%fold%"))


async def before_the_apps_commit(lab: CrashLab, kill: Kill) -> None:
    """The app has read and written, and has not committed."""
    lab.write(10)
    await lab.reader.hold()
    try:
        await kill(await lab.evidence(IN_TRANSACTION, NAME))
    finally:
        lab.reader.release()


async def at_any_moment(lab: CrashLab, kill: Kill) -> None:
    """Wherever everything is, some milliseconds after it began to happen at once."""
    delay_s = lab.rng.uniform(0.0, 0.4)
    for account in lab.accounts[:2]:
        await lab.resync(account)
    lab.write(60)
    await asyncio.sleep(delay_s)
    await kill(f"{delay_s * 1000:.0f} ms after 60 commits and 2 resyncs")


Place = Callable[[CrashLab, Kill], Awaitable[None]]
POINTS: list[tuple[Place, str]] = [
    (in_apply, "standpipe lane %"),
    (at_the_commit_of_a_batch, "standpipe lane %"),
    (in_reconcile, "standpipe reconcile"),
    (in_fold, NAME),
    (before_the_apps_commit, NAME),
    (in_apply, "postmaster"),
    (at_the_commit_of_a_batch, "postmaster"),
    (in_reconcile, "postmaster"),
    (before_the_apps_commit, "postmaster"),
    (in_fold, "service"),
    (before_the_apps_commit, "service"),
    (at_any_moment, "standpipe lane %"),
    (at_any_moment, "postmaster"),
]


def killer(lab: CrashLab, victim: str) -> Kill:
    """Return what kills a victim, given the evidence."""
    if victim == "postmaster":
        return lab.kill_postmaster
    if victim == "service":
        return lab.kill_service
    return partial(lab.kill_backend, victim)


@asynccontextmanager
async def crash_lab(folder: Path, seed: int) -> AsyncIterator[CrashLab]:
    """Run a server, a network and an app of this test's own."""
    # What was committed must outlive a kill; only power failures are none of this test's business.
    settings = {**FAST, "synchronous_commit": "on"}
    server = EmbeddedPostgres(folder / "pg", binaries=chosen_binaries(), settings=settings)
    with server as url:
        await asyncio.to_thread(upgrade, url)
        async with Simnet(seed=seed, pds_count=2) as net:
            lab = CrashLab(net, url, await connect(url, name="kill test"), folder, seed)
            lab.server = server
            await lab.conn.execute(SETUP)
            lab.reading = reading = asyncio.create_task(lab.reader.run())
            try:
                yield lab
                assert not reading.done(), reading.exception()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                await lab.close()
                lab.conn.terminate()


@pytest.mark.rule("CU-04", "CU-05", "BF-02", "BF-13")
@pytest.mark.parametrize("seed", SEEDS)
async def test_an_app_reads_exactly_once_whatever_is_killed(seed: int, tmp_path: Path) -> None:
    async with crash_lab(tmp_path, seed) as lab:
        await lab.conn.execute("select sync.track_repos($1)", [one.did for one in lab.accounts])
        await lab.start()
        await lab.converge()
        points, reached = POINTS.copy(), Counter[tuple[str, str]]()
        lab.rng.shuffle(points)
        for place, victim in points:
            connects = lab.reader.connects
            await place(lab, killer(lab, victim))
            await lab.recover()
            assert (lab.reader.connects > connects) == (victim != "service")
            reached[place.__name__, victim] += 1
        await lab.stop()
        assert await lab.stored() == lab.signed()
        assert await lab.conn.fetchval(DIFFERENCE) == 0
        held = "select held - (select count(*) from app.records) from app.counters"
        assert await lab.conn.fetchval(held) == 0
        assert await lab.conn.fetchval(DEADLOCKS) == 0
        print(f"{lab.kills.total} kills: {dict(lab.kills.kinds)}")
        assert reached == Counter((place.__name__, victim) for place, victim in POINTS)
        assert lab.kills.total == len(POINTS)
