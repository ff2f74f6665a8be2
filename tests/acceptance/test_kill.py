"""Kill -9 of the service at seeded moments, each proven by what the database showed just before.

After every kill the service is started again and has to converge to exactly the honest network.
At the end a reader of the log, who read along all the time, has the same records: no change was
lost and none was told twice.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sync.atproto.cid import format_cid
from sync.cli.demo.fold import Fold, Key
from sync.database import IngestConnection, connect
from sync.simnet import Account, Simnet
from sync.simnet.traffic import POST, PROFILE, Traffic, generate
from tests.acceptance.commands import PROGRAM, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SEED = int(os.environ.get("STANDPIPE_TEST_KILL_SEED", "20261123"))
ACCOUNTS = 8
RECORDS = 120
MIN_KILLS = 10
MIN_IN_RECONCILE = 3
MIN_WITH_HELD = 3
EVIDENCE_TIMEOUT_S = 30.0
CONVERGE_TIMEOUT_S = 60.0
POLL_S = 0.01

LOCK_RECORDS = "lock table sync.stored_records in share mode"
LOCK_HEADS = "lock table sync.heads in share mode"
LOCK_LOG = "select pg_advisory_lock(7261, 1)"

# What a backend of the service does and waits for, as the server itself sees it.
ACTIVITY = r"""
    select format('%s waits for a lock (%s) in %s', application_name, wait_event,
                  coalesce(substring(query from 'sync\.[a-z_]+\('), query))
      from pg_stat_activity
     where datname = current_database() and state = 'active' and wait_event_type = 'Lock'
       and application_name like $1 and query ilike $2
"""
HELD = """
    select held_events || ' held events while ' || sync_state
      from sync.repo_status where did = $1 and sync_state = 'fetching' and held_events > 0
"""
LANE = """
    select application_name from pg_stat_activity
     where datname = current_database() and application_name like 'standpipe lane %' limit 1
"""
SESSIONS = """
    select count(*) from pg_stat_activity
     where datname = current_database() and application_name like 'standpipe %'
"""
FETCHING = "select sync_state from sync.repo_status where did = $1 and sync_state = 'fetching'"
HEADS = "select did, rev from sync.repo_status where sync_state = 'synchronized'"
RECORDS_QUERY = "select did, collection, rkey, cid from sync.records"
TOLD_TWICE = """
    select did, rev, collection, rkey, kind, count(*)
      from sync.change_log where is_live and kind in ('create', 'update', 'delete')
     group by did, rev, collection, rkey, kind, cid having count(*) > 1
"""
STATES = "select did, sync_state, rev, seen_rev, attempts, error from sync.repo_status"


@dataclass(slots=True)
class Kills:
    """What the database showed at each kill."""

    seed: int = SEED
    total: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, evidence: str) -> None:
        self.total += 1
        self.kinds[kind] += 1
        print(f"kill {self.total} (seed {self.seed}): {kind}: {evidence}")


class Lab:
    """An honest network, a service that keeps being killed, and a reader of its log."""

    def __init__(self, net: Simnet, url: str, conn: IngestConnection, folder: Path) -> None:
        self.net = net
        self.url = url
        self.conn = conn
        self.rng = random.Random(SEED)
        self.accounts = generate(net.world, ACCOUNTS, RECORDS)
        self.traffic = Traffic(net.world, seed=SEED)
        self.kills = Kills()
        self.fold = Fold()
        self._log = folder / "service.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the service as a user would, and wait until it works."""
        environment = clean_environment(
            STANDPIPE_DATABASE_URL=self.url,
            STANDPIPE_DATA_DIR=str(self._log.parent / "data"),
            STANDPIPE_RELAY_URL=self.net.relay_http_url,
            STANDPIPE_PLC_URL=self.net.plc_url,
            STANDPIPE_HANDLE_BASE_URLS=",".join(self.net.pds_urls),
            STANDPIPE_ALLOW_PRIVATE_HOSTS="true",
        )
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "run", env=environment, cwd=self._log.parent, stdout=log, stderr=log
            )
        await self.evidence(LANE)

    async def kill(self, kind: str, evidence: str) -> None:
        """Take the service away at this very moment."""
        assert self._process is not None
        assert self._process.returncode is None, self.service_log()
        self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL
        self._process = None
        self.kills.note(kind, evidence)

    async def settle(self) -> None:
        """Wait until the server has given up the dead service's sessions; then look at the ruins.

        What is there must be whole transactions: a reader of the log has what the table has.
        """
        deadline = asyncio.get_running_loop().time() + EVIDENCE_TIMEOUT_S
        while await self.conn.fetchval(SESSIONS):
            assert asyncio.get_running_loop().time() < deadline, "sessions of the dead live on"
            await asyncio.sleep(POLL_S)
        await self.read_on()
        assert self.fold.complaints == []
        assert self.fold.records == await self.stored()

    async def stop(self) -> None:
        """End the service properly; it has to drain and exit 0."""
        assert self._process is not None
        self._process.terminate()
        assert await asyncio.wait_for(self._process.wait(), 20) == 0, self.service_log()
        self._process = None

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def evidence(self, query: str, *arguments: str) -> str:
        """Wait until the database shows what a kill point is about."""
        deadline = asyncio.get_running_loop().time() + EVIDENCE_TIMEOUT_S
        while True:
            found = await self.conn.fetchval(query, *arguments)
            if found is not None:
                return str(found)
            assert self._process is not None
            assert self._process.returncode is None, self.service_log()
            in_time = asyncio.get_running_loop().time() < deadline
            assert in_time, f"no evidence of {arguments}\n{self.service_log()}"
            await asyncio.sleep(POLL_S)

    async def converge(self) -> None:
        """Wait until every repo is synchronized at its account's rev; then compare."""
        deadline = asyncio.get_running_loop().time() + CONVERGE_TIMEOUT_S
        wanted = {account.did: account.rev for account in self.accounts}
        while {row["did"]: row["rev"] for row in await self.conn.fetch(HEADS)} != wanted:
            assert self._process is not None
            assert self._process.returncode is None, self.service_log()
            if asyncio.get_running_loop().time() > deadline:
                states = [tuple(row) for row in await self.conn.fetch(STATES)]
                pytest.fail(f"did not converge: {states}\n{self.service_log()}")
            await asyncio.sleep(POLL_S)
        assert await self.stored() == self.signed()
        await self.read_on()
        assert self.fold.complaints == []

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
                self.fold.apply(dict(row))
            if not rows:
                return

    async def stored(self) -> dict[Key, str]:
        rows = await self.conn.fetch(RECORDS_QUERY)
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}

    def signed(self) -> dict[Key, str]:
        found = {}
        for account in self.accounts:
            for path, cid in account.leaves().items():
                collection, _, rkey = path.partition("/")
                found[account.did, collection, rkey] = format_cid(cid)
        return found

    def write(self, count: int) -> None:
        """Make honest commits of all kinds, anywhere."""
        for _ in range(count):
            self.traffic.step()

    def choose(self) -> Account:
        return self.rng.choice(self.accounts)

    def lose_changes(self, account: Account) -> None:
        """Change a repo in ways that nobody hears of, so that a resync has something to write."""
        self.net.drop_next(2)
        text = f"unheard {self.rng.random()}"
        account.update(PROFILE, {"$type": PROFILE, "displayName": text}, rkey="self")
        account.create(POST, {"$type": POST, "text": text})

    @asynccontextmanager
    async def lock(self, statement: str) -> AsyncIterator[None]:
        """Stop whoever comes to a certain point of his transaction."""
        conn = await connect(self.url, name="kill test lock")
        try:
            transaction = conn.transaction()
            await transaction.start()
            await conn.execute(statement)
            yield
        finally:
            await conn.close()

    async def resync(self, account: Account) -> None:
        await self.conn.execute("select sync.resync_repos(array[$1])", account.did)

    def service_log(self) -> str:
        return self._log.read_bytes()[-6000:].decode(errors="replace")


# The kill points --------------------------------------------------------------------------------


async def in_reconcile_before_records(lab: Lab) -> None:
    """Inside sync.reconcile_repos(), before a record is written."""
    account = lab.choose()
    lab.lose_changes(account)
    async with lab.lock(LOCK_RECORDS):
        await lab.resync(account)
        evidence = await lab.evidence(ACTIVITY, "standpipe reconcile", "%reconcile_repos%")
        await lab.kill("reconcile", evidence)


async def in_reconcile_before_heads(lab: Lab) -> None:
    """Inside sync.reconcile_repos(), after the records are written."""
    account = lab.choose()
    lab.lose_changes(account)
    async with lab.lock(LOCK_HEADS):
        await lab.resync(account)
        evidence = await lab.evidence(ACTIVITY, "standpipe reconcile", "%reconcile_repos%")
        await lab.kill("reconcile", evidence)


async def in_reconcile_with_held_commits(lab: Lab) -> None:
    """Both at once: commits were held during the download, and the reconcile has begun."""
    account = lab.choose()
    lab.lose_changes(account)
    hold = lab.net.hold_get_repo(account.did)
    await lab.resync(account)
    await hold.arrived.wait()
    write_one(lab, account)
    held = await lab.evidence(HELD, account.did)
    async with lab.lock(LOCK_HEADS):
        hold.release()
        evidence = await lab.evidence(ACTIVITY, "standpipe reconcile", "%reconcile_repos%")
        lab.kills.kinds["held"] += 1
        await lab.kill("reconcile", f"{evidence}; {held}")


async def at_the_commit_of_a_reconcile(lab: Lab) -> None:
    """After COMMIT was sent and before it is answered: it happens, and nobody learns of it."""
    account = lab.choose()
    lab.lose_changes(account)
    hold = lab.net.hold_get_repo(account.did)
    await lab.resync(account)
    await hold.arrived.wait()
    async with lab.lock(LOCK_LOG):
        hold.release()
        evidence = await lab.evidence(ACTIVITY, "standpipe reconcile", "commit%")
        await lab.kill("commit of a reconcile", evidence)


async def with_held_commits(lab: Lab) -> None:
    """While a repo is being downloaded and its live commits are held."""
    account = lab.choose()
    hold = lab.net.hold_get_repo(account.did)
    await lab.resync(account)
    await hold.arrived.wait()
    for _ in range(lab.rng.randint(1, 5)):
        write_one(lab, account)
    evidence = await lab.evidence(HELD, account.did)
    await lab.kill("held", evidence)
    hold.release()


async def in_a_download(lab: Lab) -> None:
    """While a repo is being downloaded and nothing happens to it."""
    account = lab.choose()
    hold = lab.net.hold_get_repo(account.did)
    await lab.resync(account)
    await hold.arrived.wait()
    await lab.kill("download", await lab.evidence(FETCHING, account.did))
    hold.release()


async def in_apply(lab: Lab) -> None:
    """Inside sync.apply_events(), before a record is written."""
    async with lab.lock(LOCK_RECORDS):
        lab.write(lab.rng.randint(1, 20))
        evidence = await lab.evidence(ACTIVITY, "standpipe lane%", "%apply_events%")
        await lab.kill("apply", evidence)


async def at_the_commit_of_a_batch(lab: Lab) -> None:
    """After the lane sent COMMIT and before it is answered."""
    async with lab.lock(LOCK_LOG):
        lab.write(lab.rng.randint(1, 20))
        evidence = await lab.evidence(ACTIVITY, "standpipe lane%", "commit%")
        await lab.kill("commit of a batch", evidence)


async def at_any_moment(lab: Lab) -> None:
    """Wherever the service is, some milliseconds after everything began to happen at once."""
    delay_s = lab.rng.uniform(0.0, 0.4)
    for account in lab.accounts[:3]:
        await lab.resync(account)
    lab.write(60)
    await asyncio.sleep(delay_s)
    await lab.kill("any moment", f"{delay_s * 1000:.0f} ms after 60 commits and 3 resyncs")


POINTS: list[Callable[[Lab], Awaitable[None]]] = [
    in_reconcile_before_records,
    in_reconcile_before_heads,
    in_reconcile_with_held_commits,
    at_the_commit_of_a_reconcile,
    with_held_commits,
    with_held_commits,
    with_held_commits,
    in_a_download,
    in_apply,
    at_the_commit_of_a_batch,
    at_any_moment,
    at_any_moment,
]


def write_one(lab: Lab, account: Account) -> None:
    """Make one commit on one account."""
    account.create(POST, {"$type": POST, "text": f"heard {lab.rng.random()}"})


@asynccontextmanager
async def opened_lab(clone: str, folder: Path) -> AsyncIterator[Lab]:
    conn = await connect(clone, name="kill test")
    async with Simnet(seed=SEED, pds_count=2) as net:
        lab = Lab(net, clone, conn, folder)
        try:
            yield lab
        finally:
            await lab.close()
            await conn.close()


@pytest.mark.rule("CU-04", "CU-05", "BF-02", "BF-13")
async def test_the_service_converges_wherever_it_is_killed(clone: str, tmp_path: Path) -> None:
    async with opened_lab(clone, tmp_path) as lab:
        await lab.conn.execute("select sync.create_consumer('kill')")
        await lab.conn.execute(
            "select sync.track_repos($1)", [account.did for account in lab.accounts]
        )
        await lab.start()
        await lab.converge()
        points = POINTS.copy()
        lab.rng.shuffle(points)
        for number, point in enumerate(points):
            await point(lab)
            await lab.settle()
            lab.write(lab.rng.randint(0, 10))  # life goes on meanwhile
            if number == len(points) // 2:
                lab.net.forget_history()  # and this time the stream will not tell
            await lab.start()
            await lab.converge()
        await lab.stop()
        assert lab.fold.records == await lab.stored() == lab.signed()
        assert [tuple(row) for row in await lab.conn.fetch(TOLD_TWICE)] == []
        print(f"{lab.kills.total} kills: {dict(lab.kills.kinds)}")
        assert lab.kills.total >= MIN_KILLS
        assert lab.kills.kinds["reconcile"] >= MIN_IN_RECONCILE
        assert lab.kills.kinds["held"] >= MIN_WITH_HELD
