"""Several services on one database: shares of the lanes, taking over, and the work besides."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from sync.lanes import lane_of
from sync.simnet import Account, Simnet
from sync.simnet.faults import Hold
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

LANES = 4
# Who holds how many lanes, as the server sees it.
HOLDERS = """
    select pid, count(*) from pg_locks
     where locktype = 'advisory' and classid = 7264 and granted
       and database = (select oid from pg_database where datname = current_database())
     group by 1 order by 2
"""


@asynccontextmanager
async def services(net: Simnet, clone: str, folder: Path, count: int) -> AsyncIterator[list[Rig]]:
    """Give several services on one database, not started yet."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(rig_on(net, clone, folder, lanes=LANES))
            for _ in range(count)
        ]


async def hold(rig: Rig, *shares: int) -> None:
    """Wait until the lanes are held in these shares."""

    async def are_held() -> bool:
        return [row["count"] for row in await rig.conn.fetch(HOLDERS)] == sorted(shares)

    await rig.until(are_held)


async def follow(net: Simnet, rig: Rig, count: int = 12) -> list[Account]:
    """Track accounts that fall into every lane, and wait until they are level."""
    accounts = [net.create_account(f"a{number}.test") for number in range(count)]
    assert len({lane_of(account.did, LANES) for account in accounts}) == LANES
    await rig.track(*accounts)
    await rig.level(*accounts)
    return accounts


async def write(accounts: Sequence[Account], name: str, *, times: int = 5) -> None:
    """Have every account commit a few times, with pauses for everybody else."""
    for number in range(times):
        for account in accounts:
            account.create(NOTE, note(name), rkey=f"{name}-{number}")
            await asyncio.sleep(0)


async def assert_told_once(rig: Rig, accounts: Sequence[Account]) -> None:
    """Check that every record was logged as created exactly once, live."""
    for account in accounts:
        changes = await rig.changes(account)
        creates = Counter(rkey for kind, rkey, is_live in changes if kind == "create" and is_live)
        assert creates == Counter(path.partition("/")[2] for path in account.leaves())


@pytest.mark.rule("CU-04", "CU-17")
async def test_services_share_the_lanes_and_take_over_from_each_other(clone, tmp_path: Path):
    async with Simnet(seed=61, start_us=None) as net, services(net, clone, tmp_path, 3) as rigs:
        first, second, third = rigs
        first.start()
        accounts = await follow(net, first)
        second.start()
        await hold(first, 2, 2)
        third.start()
        await hold(first, 1, 1, 2)
        await write(accounts, "shared")
        await first.level(*accounts)

        async def all_worked() -> bool:
            return all(rig.progress.outcomes.get("applied") for rig in rigs)

        await first.until(all_worked)
        await first.crash()
        await write(accounts, "crashed")
        await hold(second, 2, 2)
        await second.level(*accounts)
        await second.stop()
        await write(accounts, "stopped")
        await third.level(*accounts)
        await hold(third, 4)
        await assert_told_once(third, accounts)


async def test_a_service_without_a_lane_stands_by_and_takes_over(clone, tmp_path: Path):
    async with Simnet(seed=62, start_us=None) as net, services(net, clone, tmp_path, 5) as rigs:
        first, last = rigs[0], rigs[-1]
        first.start()
        accounts = await follow(net, first)
        for rig in rigs[1:]:
            rig.start()
        await hold(first, 1, 1, 1, 1)

        async def one_stands_by() -> bool:
            states = [source.state for rig in rigs for source in rig.progress.sources.values()]
            return Counter(states) == {"live": 4, "standby": 1}

        await first.until(one_stands_by)
        for rig in rigs[:-1]:
            await rig.stop()
        await write(accounts, "alone")
        await last.level(*accounts)
        await hold(last, 4)
        await assert_told_once(last, accounts)


@pytest.mark.rule("CU-08", "CU-09", "CU-10")
async def test_who_has_other_lanes_than_the_first_is_told_of_the_stream_as_well(
    clone, tmp_path: Path
):
    async with Simnet(seed=63, start_us=None) as net, services(net, clone, tmp_path, 1) as [rig]:
        rig.start()
        accounts = await follow(net, rig)
        await rig.stop()
        await write(accounts, "unheard")
        net.forget_history()
        async with others_hold(rig, 0, 1):
            rig.start()
            await hold(rig, 2, 2)
            await rig.level(*accounts)  # OutdatedCursor carries no DID
            await rig.stop()
            await rig.conn.execute("update sync.cursors set seq = 1000000")
            rig.start()

            async def is_stopped() -> bool:  # nor does FutureCursor
                return not await rig.conn.fetchval("select is_enabled from sync.sources")

            await rig.until(is_stopped)


@asynccontextmanager
async def others_hold(rig: Rig, *lanes: int) -> AsyncIterator[None]:
    """Keep some lanes from a service, as another one does that is busy with them."""
    source_id = await rig.conn.fetchval("select source_id from sync.sources")
    other = await asyncpg.connect(rig.settings.database_url)
    try:
        await other.execute("select sync.share_lanes($1, $2)", source_id, LANES)
        for lane in set(range(LANES)) - set(lanes):
            await other.execute("select sync.leave_lane($1, $2)", source_id, lane)
        yield
    finally:
        await other.close()


async def test_all_services_fetch(clone, tmp_path: Path):
    async with (
        Simnet(seed=64, start_us=None, pds_count=8) as net,
        services(net, clone, tmp_path, 2) as rigs,
    ):
        for rig in rigs:
            rig.start()
        accounts = [net.create_account(pds=number % 8) for number in range(2 * 8 * 5)]
        holds = [net.hold_get_repo(account.did) for account in accounts]
        await rigs[0].track(*accounts)

        async def both_fetch() -> bool:  # one alone claims 64 at most
            return all(rig.progress.fetches_running for rig in rigs)

        await rigs[0].until(both_fetch)
        for each in holds:
            each.release()
        await rigs[0].level(*accounts)
        await rigs[0].fetched(len(accounts), also_by=rigs[1:])


@pytest.mark.rule("BF-14")
async def test_what_a_dead_service_fetched_is_fetched_by_another(clone, tmp_path: Path):
    async with Simnet(seed=65, start_us=None) as net, services(net, clone, tmp_path, 2) as rigs:
        first, second = rigs
        account, held = await fetch_beside(net, first, second)
        await first.crash()
        await second.level(account)
        await second.fetched(1)
        held.release()


@pytest.mark.rule("BF-02")
async def test_what_a_living_service_fetches_is_left_to_it(clone, tmp_path: Path):
    async with Simnet(seed=66, start_us=None) as net, services(net, clone, tmp_path, 2) as rigs:
        first, second = rigs
        account, held = await fetch_beside(net, first, second)
        assert not await second.conn.fetchval("select sync_priv.recover_lost_fetches()")
        held.release()
        await first.fetched(2)
        await second.level(account)
        assert second.progress.repos_fetched == 0


async def fetch_beside(net: Simnet, first: Rig, second: Rig) -> tuple[Account, Hold]:
    """Have one service in the middle of a fetch while the other joins in."""
    account = net.create_account("alice.test")
    first.start()
    await first.track(account)
    await first.level(account)
    held = net.hold_get_repo(account.did)
    await first.conn.execute("select sync.resync_repos(array[$1])", account.did)
    await held.arrived.wait()
    second.start()
    await hold(second, 2, 2)
    return account, held


async def test_a_service_that_cannot_claim_a_lane_in_time_asks_again(
    clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sessions = (
        "select pid from pg_stat_activity where application_name = 'standpipe lanes of 1'"
        " and datname = current_database()"
    )
    async with Simnet(seed=68, start_us=None) as net, services(net, clone, tmp_path, 1) as rigs:
        (rig,) = rigs
        rig.start()
        accounts = await follow(net, rig)
        (before,) = await rig.conn.fetch(sessions)
        holder = await asyncpg.connect(clone)
        try:
            async with holder.transaction():
                await holder.execute("select from sync.cursors for update")
                await rig.conn.execute("select pg_terminate_backend($1)", before["pid"])

                async def asked_twice() -> bool:
                    pids = {row["pid"] for row in await rig.conn.fetch(sessions)} - {before["pid"]}
                    seen.update(pids)
                    return len(seen) > 1

                seen: set[int] = set()
                with monkeypatch.context() as patch:
                    patch.setattr("sync.shares.LEASE_S", 0.5)
                    await rig.until(asked_twice)
        finally:
            await holder.close()
        await write(accounts, "later")
        await rig.level(*accounts)
        await rig.stop()
