"""What is large, slow, dead or idle holds up nobody else: other repos stay current meanwhile.

The app must be told of other repos' commits while it lasts. How long that takes is printed, beside
the same load with nothing going on. With STANDPIPE_TEST_LONG=1 the large repo has a million
records.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import quantiles

import asyncpg
import pytest

from sync.database import connect
from sync.simnet import Account
from sync.simnet.repo import Write
from sync.simnet.traffic import POST
from tests.acceptance.endurance import Endurance
from tests.acceptance.test_endurance import Load, endurance
from tests.postgres import chosen_binaries

IS_LONG = bool(os.environ.get("STANDPIPE_TEST_LONG"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if IS_LONG else 240)]

LARGE = 1_000_000 if IS_LONG else 20_000
LOAD = Load(seconds=3600, commits_per_s=200 if IS_LONG else 50, every_s=0, accounts=40, records=20)
LEAST_S = 20.0 if IS_LONG else 2.0  # how long each situation is looked at, at least
LEAST_TOLD = 3  # changes meanwhile: on a machine that stalls nobody is told for some seconds
PATIENCE_S = 60.0
IS_SYNCHRONIZED = """
    select count(*) = 1 from sync.repo_status
     where did = $1 and sync_state = 'synchronized' and rev = $2
"""
HAS_NOTHING_LEFT = "select not exists (select from sync_priv.purges)"
IS_FETCHING = "select sync_state = 'fetching' from sync.repo_status where did = $1"


class Scene:
    """Other repos that commit all the time, an app that reads, and what goes on beside them."""

    def __init__(self, lab: Endurance, conn: asyncpg.Connection) -> None:
        self.lab = lab
        self.conn = conn
        self.lines: list[str] = []
        self._told_before = 0

    async def during(self, name: str, work: Awaitable[object]) -> None:
        """Measure how others fare while something goes on."""
        samples = self.lab.samples.delays
        self._told_before, started_at = len(samples), asyncio.get_running_loop().time()
        await work
        lasted_s = asyncio.get_running_loop().time() - started_at
        delays = [delay * 1e3 for _, delay in samples[self._told_before :]]
        assert len(delays) >= LEAST_TOLD, f"nobody was told of anything: {name}"
        cuts = quantiles(delays, n=100)
        self.lines.append(
            f"{name:<44} {lasted_s:6.1f} s {len(delays):6} changes,"
            f" delay ms p50 {cuts[49]:7.1f} p99 {cuts[98]:8.1f} max {max(delays):8.1f}"
        )

    async def until(self, query: str, *arguments: object) -> None:
        """Wait until the database says yes, and for a while at any rate."""
        loop = asyncio.get_running_loop()
        looked_until = loop.time() + LEAST_S
        while not await self.conn.fetchval(query, *arguments):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if loop.time() < looked_until:
            await self.progress(looked_until - loop.time())

    async def call(self, query: str, *arguments: object) -> None:
        await self.conn.execute(query, *arguments)

    async def progress(self, least_s: float = LEAST_S) -> None:
        """Let it go on for a while, and until others were told of something."""
        await asyncio.sleep(least_s)
        with suppress(TimeoutError):  # then it is said that nobody was
            async with asyncio.timeout(PATIENCE_S):
                while not self.others_were_told():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    def others_were_told(self) -> bool:
        """Tell whether the app was told of others' commits since this situation began."""
        return len(self.lab.samples.delays) >= self._told_before + LEAST_TOLD


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Run it, and check in the end that everything is right."""
    async with endurance(folder, LOAD) as lab:
        await lab.prepare(services=1, lanes=2)
        conn = await connect(lab.url, name="endurance scene")
        found = Scene(lab, conn)
        try:
            async with lab.busy(commits_per_s=LOAD.commits_per_s):
                yield found
            print("", *found.lines, sep="\n")
            lab.end()
        finally:
            await conn.close()


@pytest.mark.rule("BF-16", "IN-12")
async def test_nothing_that_goes_on_elsewhere_holds_others_up(tmp_path: Path) -> None:
    async with scene(tmp_path) as stage:
        await stage.during("nothing", stage.progress())
        for situation in SITUATIONS:
            await situation(stage)
        assert len(stage.lines) > len(SITUATIONS)


async def a_large_repo(stage: Scene) -> None:
    """It is loaded, changed unheard, reconciled, and purged.

    Making and changing it keeps this process from its own work: what was late for that is over
    before anything is measured.
    """
    large = await asyncio.to_thread(make_large, stage.lab)
    await stage.lab.settle()
    await stage.call("select sync.track_repos(array[$1])", large.did)
    loaded = stage.until(IS_SYNCHRONIZED, large.did, large.rev)
    await stage.during(f"first load of {LARGE:,} records", loaded)
    change_unheard(stage.lab, large)
    await stage.lab.settle()
    await stage.call("select sync.resync_repos(array[$1])", large.did)
    reconciled = stage.until(IS_SYNCHRONIZED, large.did, large.rev)
    await stage.during("its reconcile, one in a hundred changed", reconciled)
    stage.lab.untracked.add(large.did)
    await stage.call("select sync.untrack_repos(array[$1])", large.did)
    await stage.during("its purge", stage.until(HAS_NOTHING_LEFT))


def make_large(lab: Endurance) -> Account:
    """Create an account in one import."""
    value = {"$type": POST, "text": "one of many", "createdAt": "2026-11-26T00:00:00.000Z"}
    records = {f"{POST}/r{number:07}": value for number in range(LARGE)}
    return lab.net.create_account("large.test", records=records)


def change_unheard(lab: Endurance, large: Account) -> None:
    """Change one record in a hundred without telling anybody."""
    keys = [f"r{number:07}" for number in range(0, LARGE, 100)]
    for start in range(0, len(keys), 200):
        lab.net.drop_next(1)
        value = {"$type": POST, "text": f"changed {start}"}
        large.apply_writes([Write.update(POST, rkey, value) for rkey in keys[start : start + 200]])


async def a_slow_pds(stage: Scene) -> None:
    """It answers no fetch for as long as we look."""
    did = slow_account(stage)
    held = stage.lab.net.hold_get_repo(did)
    await stage.call("select sync.resync_repos(array[$1])", did)
    await held.arrived.wait()
    await stage.during("a PDS that does not answer a getRepo", stage.until(IS_FETCHING, did))
    held.release()


def slow_account(stage: Scene) -> str:
    """Return a repo that has a reason to be late; how the others fare is measured."""
    did = next(iter(stage.lab.net.world.accounts))
    stage.lab.app.unmeasured.add(did)
    return did


async def a_dead_plc(stage: Scene) -> None:
    """Nobody's identity can be looked up, though the stream says that some have changed."""
    net = stage.lab.net
    await net.stop_server("plc")
    for account in list(net.world.accounts.values())[:20]:
        account.emit_identity()
    await stage.during("a dead PLC, 20 identities in doubt", stage.progress())
    await net.start_server("plc")


async def a_dump(stage: Scene) -> None:
    """Backups, one after the other."""

    async def dump() -> None:
        loop = asyncio.get_running_loop()
        least, deadline = loop.time() + LEAST_S, loop.time() + PATIENCE_S
        while loop.time() < least or (loop.time() < deadline and not stage.others_were_told()):
            process = await asyncio.create_subprocess_exec(
                str(chosen_binaries().program("pg_dump")),
                "-Fc",
                "--no-sync",
                "-f",
                "/dev/null",
                stage.lab.url,
            )
            assert await process.wait() == 0

    await stage.during("pg_dump", dump())


async def an_idle_app(stage: Scene) -> None:
    """An app read and wrote, holds a repo's row, and does nothing for a while."""
    did = slow_account(stage)
    conn = await connect(stage.lab.url, name="endurance idle app")
    try:
        await conn.execute("begin; insert into app.notes values ('mine')")
        await conn.fetch("select * from sync.read_changes('idle', 100)")
        await conn.fetch("select from sync.repos where did = $1 for update", did)
        await stage.during("an app that idles in its transaction", stage.progress())
        await conn.execute("commit")
    finally:
        conn.terminate()


SITUATIONS: tuple[Callable[[Scene], Awaitable[None]], ...] = (
    a_large_repo,
    a_slow_pds,
    a_dead_plc,
    a_dump,
    an_idle_app,
)
