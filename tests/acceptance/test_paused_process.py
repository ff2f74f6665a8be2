"""A process that is stopped inside its transaction (SIGSTOP, a laptop's lid) keeps nobody's rows.

The server ends its session, a successor goes on, and what wakes up again is refused.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import asyncpg
import pytest

from sync.simnet import Account, Simnet
from tests.acceptance.commands import clean_environment, read_line
from tests.integration.rig import NOTE, Rig, note, rig_on
from tests.sql.driver import Driver, Event, Op, did

pytestmark = pytest.mark.timeout(120)

# A lane that stops itself within its transaction, and says afterwards how its calls ended.
LANE = """
import asyncio, os, select, signal, sys
import asyncpg
import sync.sessions
from sync.staging import LaneClaim, StagedEvent, apply_events, copy_events

sync.sessions.IDLE_TRANSACTION_TIMEOUT_S = 3.0
url, source_id, did = sys.argv[1], int(sys.argv[2]), sys.argv[3]
event = StagedEvent(seq=999, did=did, kind="account", is_active=False, status="deactivated")

async def apply(claim, pause=None):
    async with sync.sessions.ingest_session(url, name="paused") as conn:
        claim = claim or LaneClaim(
            source_id, 0, (await conn.fetchrow("select * from sync.claim_lane($1)", source_id))[0])
        try:
            async with conn.transaction():
                await copy_events(conn, (event,))
                await apply_events(conn, claim, cursor=999, generation=1)
                if pause is not None:
                    await pause(conn)
            print("committed", flush=True)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            is_ours = (getattr(error, "sqlstate", None) or "").startswith("SY")
            print(error.sqlstate if is_ours else "lost", flush=True)
    return claim

async def stop(conn):
    print("applied", flush=True)
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        await conn.execute("select 1")  # it is not idle before it is told to be
    os.kill(os.getpid(), signal.SIGSTOP)

async def main():
    claim = await apply(None, stop)
    await apply(claim)

asyncio.run(main())
"""

# The program, with less patience.
SERVICE = """
import sync.sessions
sync.sessions.LEASE_S = 2.0
from sync.cli import main
main()
"""

LANE_STATE = """
    select a.state || coalesce(' ' || a.wait_event_type, '') from pg_stat_activity a
     where a.datname = current_database() and a.application_name = $1
"""
IS_FREE = "select from sync.repos where did = $1 for no key update skip locked"


@contextmanager
def child(code: str, *arguments: str, folder: Path, **environment: str) -> Iterator[Popen[str]]:
    """Run a Python program until the end of the block."""
    with (folder / "child.log").open("ab") as log:
        process = Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            env=clean_environment(**environment),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also ends what is stopped
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


def test_a_lane_that_slept_in_its_transaction_is_refused_when_it_wakes(
    clone: str, session: Any, tmp_path: Path
) -> None:
    lane = Driver(session())
    lane.load(1, {"a": "x"}, at=10, data="t10")
    with child(LANE, clone, str(lane.source_id), did(1), folder=tmp_path) as process:
        assert read_line(process) == "applied\n"
        free = "select from sync.repos for no key update skip locked"
        assert lane.rows(free) == []
        assert process.stdin is not None
        process.stdin.write("stop\n")
        process.stdin.flush()
        os.waitpid(process.pid, os.WUNTRACED)  # it has stopped
        lane.conn.execute("set lock_timeout = '30s'")
        lane.token = lane.value("select token from sync.claim_lane(%s)", lane.source_id)
        next_commit = Event(
            did(1), rev=11, since=10, before="t10", data="t11", ops=[Op("create", "b", "y")]
        )
        assert lane.apply(next_commit) == {"applied": 1}
        process.send_signal(signal.SIGCONT)
        assert read_line(process) == "lost\n"
        assert read_line(process) == "SY101\n"
        assert process.wait(20) == 0
    assert lane.texts(1) == {"a": "x", "b": "y"}
    assert lane.value("select is_active from sync.repos")
    assert lane.value("select seq from sync.cursors") < 999


async def test_a_service_that_slept_in_its_transaction_leaves_its_work_to_its_successor(
    clone: str, tmp_path: Path
) -> None:
    async with paused_service(clone, tmp_path) as (rig, process, account):
        rig.start()
        await rig.until(partial(has_head, rig, account))
        os.killpg(process.pid, signal.SIGCONT)
        said = tmp_path / "child.log"

        async def stands_by() -> bool:
            return "standing by" in await asyncio.to_thread(said.read_text)

        await rig.until(stands_by)
        account.create(NOTE, note("after"))
        await rig.level(account)
        twice = "select count(*) - count(distinct rkey) from sync.change_log where kind = 'create'"
        assert await rig.conn.fetchval(twice) == 0
        await rig.stop()
        account.create(NOTE, note("the one that slept takes over again"))
        await rig.level(account)


@asynccontextmanager
async def paused_service(
    clone: str, folder: Path
) -> AsyncIterator[tuple[Rig, Popen[str], Account]]:
    """Run a service and stop it between a lane's call and its COMMIT, until it lost its rows."""
    async with Simnet(seed=43) as net, rig_on(net, clone, folder) as rig:
        account = net.create_account("a.test")
        account.create(NOTE, note("before"))
        await rig.track(account)
        environment = {
            "STANDPIPE_DATABASE_URL": clone,
            "STANDPIPE_DATA_DIR": str(folder / "data"),
            "STANDPIPE_RELAY_URL": net.relay_http_url,
            "STANDPIPE_PLC_URL": net.plc_url,
            "STANDPIPE_HANDLE_BASE_URLS": ",".join(net.pds_urls),
            "STANDPIPE_ALLOW_PRIVATE_HOSTS": "true",
            "STANDPIPE_LANES": "1",
        }
        with child(SERVICE, "run", folder=folder, **environment) as process:
            await rig.level(account)
            source_id = await rig.conn.fetchval("select source_id from sync.sources")
            lane = f"standpipe lane {source_id}.0"
            lock = await asyncpg.connect(clone)
            try:
                await lock.execute("begin; lock table sync.heads in share mode")
                account.create(NOTE, note("during"))
                await rig.until(partial(has_state, rig, lane, "active Lock"))
                os.killpg(process.pid, signal.SIGSTOP)
                await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
            finally:
                await lock.close()
            await rig.until(partial(has_state, rig, lane, "idle in transaction Client"))
            assert await rig.conn.fetch(IS_FREE, account.did) == []
            await rig.until(partial(has_state, rig, lane, None))
            assert len(await rig.conn.fetch(IS_FREE, account.did)) == 1
            yield rig, process, account


async def has_state(rig: Rig, name: str, state: str | None) -> bool:
    """Tell whether a session is in a state; None means gone."""
    return await rig.conn.fetchval(LANE_STATE, name) == state


async def has_head(rig: Rig, account: Account) -> bool:
    """Tell whether the stream was followed to an account's latest commit."""
    return await rig.head(account) == account.rev
