"""A dump that takes for ever disturbs nobody, and an old snapshot costs what is said here.

A dump holds ACCESS SHARE on every table, and its snapshot keeps every dead row alive. Whatever is
updated or deleted all the time must then not become a scan of the dead.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sync.simnet import Simnet
from tests.acceptance.restoring import shell_environment
from tests.integration.rig import NOTE, note, rig_on
from tests.postgres import Server
from tests.sql.driver import Driver, Event, Op, did

pytestmark = pytest.mark.timeout(240)

# A dump that can write no further, with all its locks.
STUCK = """
    select count(*) > 0 from pg_stat_activity a
     where a.datname = current_database() and a.application_name = 'pg_dump'
       and a.state = 'idle in transaction'
       and a.state_change < clock_timestamp() - interval '0.5 seconds'
       and (select count(*) from pg_locks l where l.pid = a.pid and l.mode = 'AccessShareLock') > 20
"""
# As if the log had come to the last half of its second partition.
GO_ON = """
    select setval('sync_priv.change_ids', sync_priv.partition_size() * 3 / 2 + 1)
      from pg_advisory_xact_lock(7261, 1)
"""
NEXT_PARTITION = "select to_regclass('sync_priv.changes_2') is not null"
NOTHING_HELD = "select count(*) = 0 from sync_priv.held_events"
NO_PURGE = "select count(*) = 0 from sync_priv.purges"


@contextmanager
def stuck_dump(server: Server, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a dump into a pipe that nobody reads; at the end it is read, and succeeds."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        ["pg_dump", url], stdout=writing, env=shell_environment(server.binaries)
    ) as process:
        os.close(writing)
        try:
            yield process
        finally:
            while os.read(reading, 1 << 20):
                pass
            os.close(reading)
    assert process.returncode == 0


async def test_the_service_goes_on_while_a_dump_is_stuck(
    postgres: Server, clone: str, tmp_path: Path
) -> None:
    async with Simnet(seed=3) as net, rig_on(net, clone, tmp_path) as rig:
        big, live, gone, new = (net.create_account(f"{n}.test") for n in ("a", "b", "c", "d"))
        for account in (big, live, gone, new):
            for number in range(60):
                account.create(NOTE, note(f"{number} " + "x" * 2000))
        await rig.track(big, live, gone)
        rig.start()
        await rig.level(big, live, gone)
        with stuck_dump(postgres, clone) as dump:
            await rig.until(partial(rig.conn.fetchval, STUCK))
            await rig.conn.execute(GO_ON)
            await rig.track(new)
            for account in (big, live):
                account.create(NOTE, note("during the dump"))
            await rig.conn.fetchval("select sync.untrack_repos(array[$1])", gone.did)
            await rig.conn.fetchval("select sync.resync_repos(array[$1])", live.did)
            await rig.level(big, live, new)
            await rig.until(partial(rig.conn.fetchval, NEXT_PARTITION))
            await rig.until(partial(rig.conn.fetchval, NO_PURGE))
            await rig.until(partial(rig.conn.fetchval, NOTHING_HELD))
            await rig.until(partial(rig.conn.fetchval, STUCK))
            assert dump.poll() is None
        await rig.stop()


# What an old snapshot costs ---------------------------------------------------------------------

REPOS, FETCHED = 400, 100
FETCH_EVERY = 3
COMMITS = 2400
WINDOW = 100
NOISE_BLOCKS = 5
FETCHES = COMMITS / FETCH_EVERY
# A head shares its page with others, and its own dead versions, a few, may lie on as many pages; it
# is looked up three times, and more often by a reconcile; so are the events that were held for a
# repo. All else of the stream is flat, the cursor as well, which every batch updates.
# A claim still goes through what was fetched since: the dead entries of its host's backlog, of
# what is being fetched there, and of the queue.
GROWTH = {
    "sync.heads": 3 * COMMITS / REPOS + FETCHES / 16,
    "sync_priv.held_events": 2 * FETCHES / FETCHED,
    "sync.repos": 0.6 * FETCHES,
    "sync.fetch_queue": FETCHES / 64,
}
TOUCHED = """
    select schemaname || '.' || relname as name,
           coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0)
             + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)
             + coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0) as blocks
      from pg_catalog.pg_statio_user_tables
     where starts_with(schemaname, 'sync') and relname !~ '^changes_'
"""


class Touches:
    """Count the blocks that this connection touches, table by table."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._before = self._count()

    def _count(self) -> dict[str, int]:
        self._driver.conn.execute("select pg_stat_force_next_flush()")
        self._driver.conn.execute("select pg_stat_clear_snapshot()")
        return {row["name"]: row["blocks"] for row in self._driver.rows(TOUCHED)}

    def since(self, calls: int) -> dict[str, float]:
        """Return how many blocks of each table one of `calls` calls has touched."""
        after = self._count()
        return {name: (after[name] - self._before[name]) / calls for name in after}


def test_an_old_snapshot_makes_no_call_a_scan_of_the_dead(session: Any) -> None:
    """Lane, log, held events, reader and upkeep, after thousands of commits under a snapshot."""
    lane, reader = Driver(session()), session()
    for number in range(REPOS + FETCHED):
        lane.load(number, {"a": "x"}, at=10, data=f"{number}.10")
    reader.execute("select sync.create_consumer('app')")
    read_all(reader)
    analyst = session()
    analyst.execute("analyze")
    for other in (reader, analyst):  # what they touched is reported now, not some seconds later
        other.execute("select pg_stat_force_next_flush()")
    old = session(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from sync.repos")
    revs = dict.fromkeys(range(REPOS + FETCHED), 10)

    def work(first: int, count: int) -> None:
        for n in range(first, first + count):
            commit(lane, n % REPOS, revs)
            lane.rows("select * from sync.read_changes('app', 10)")
            if n % FETCH_EVERY == 0:
                fetch(lane, REPOS + n // FETCH_EVERY % FETCHED, revs)
        lane.value("select sync.maintain()")

    work(0, WINDOW)  # plans are made
    early = Touches(lane)
    work(WINDOW, WINDOW)
    at_first = early.since(WINDOW)
    work(2 * WINDOW, COMMITS - 3 * WINDOW)
    late = Touches(lane)
    work(COMMITS - WINDOW, WINDOW)
    at_last = late.since(WINDOW)
    growth = {name: at_last[name] - blocks for name, blocks in at_first.items()}
    print({name: round(each, 1) for name, each in growth.items() if abs(each) >= 0.5})
    for name, each in growth.items():
        assert each < GROWTH.get(name, 0) + NOISE_BLOCKS, (name, growth)
    assert lane.value("select count(*) from sync.changes") > COMMITS


def commit(lane: Driver, number: int, revs: dict[int, int]) -> None:
    """Apply one live commit of one repo."""
    at = revs[number]
    revs[number] = at + 1
    lane.apply(
        Event(
            did(number),
            rev=at + 1,
            since=at,
            before=f"{number}.{at}",
            data=f"{number}.{at + 1}",
            ops=[Op("create", f"k{at}", "y")],
        )
    )


def fetch(lane: Driver, number: int, revs: dict[int, int]) -> None:
    """Resync a repo, with a live commit held meanwhile."""
    lane.value("select sync.resync_repos(%s)", [did(number)])
    claim, at = lane.claim(number), revs[number]
    commit(lane, number, revs)
    records: dict[str | tuple[str, str], str] = {f"k{each}": "y" for each in range(10, at)}
    records["a"] = "x"
    outcome = lane.reconcile(claim, records, at=at, data=f"{number}.{at}")
    assert outcome["outcome"] == "synchronized"


def read_all(conn: Any) -> None:
    """Read a consumer to its end."""
    while conn.execute("select * from sync.read_changes('app')").fetchall():
        pass
