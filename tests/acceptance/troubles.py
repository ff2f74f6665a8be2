"""What goes wrong while services are under load; each may come at any moment."""

import asyncio
import os
import signal
from contextlib import suppress

from sync.database import connect
from tests.acceptance.endurance import LEASE_S, LOST, Endurance


async def a_getrepo_fails(lab: Endurance) -> None:
    """The next fetches are refused, time out, or are cut."""
    ways = (
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 500},
        {"cut_after_bytes": 2_000},
        {"delay_s": 2.0},
        {"commits_behind": 1},
    )
    lab.net.fail_next("sync.getRepo", times=lab.rng.randint(1, 3), **lab.rng.choice(ways))
    await a_resync(lab)


async def a_resync(lab: Endurance) -> None:
    """An operator has some repos fetched again."""
    dids = lab.rng.sample(list(lab.net.world.accounts), 3)
    with suppress(*LOST):
        conn = await connect(lab.url, name="endurance")
        try:
            await conn.execute("select sync.resync_repos($1)", dids)
        finally:
            conn.terminate()


async def events_are_lost(lab: Endurance) -> None:
    """The relay loses some events, and later ones show it."""
    lab.net.drop_next(lab.rng.randint(1, 5))


async def the_relay_hangs_up(lab: Endurance) -> None:
    """Every listener is told that it is too slow."""
    lab.net.kick_consumers()


async def the_relay_restarts(lab: Endurance) -> None:
    await lab.net.restart_relay()


async def the_plc_fails(lab: Endurance) -> None:
    """Identities change while the directory is in trouble."""
    for account in lab.rng.sample(list(lab.net.world.accounts.values()), 3):
        lab.net.fail_next(account.did, status=lab.rng.choice((429, 500, 503)))
        account.emit_identity()


async def the_server_restarts(lab: Endurance) -> None:
    """PostgreSQL is killed with -9, and recovers."""
    assert lab.server.postmaster_pid is not None
    os.kill(lab.server.postmaster_pid, signal.SIGKILL)
    await asyncio.to_thread(lab.server.revive)


async def a_session_is_ended(lab: Endurance) -> None:
    """One of the services' sessions is ended by the server."""
    with suppress(*LOST):
        conn = await connect(lab.url, name="endurance")
        try:
            pids = await conn.fetch(
                "select pid from pg_stat_activity where application_name like 'standpipe %'"
                " and datname = current_database() order by pid"
            )
            if pids:
                await conn.execute("select pg_terminate_backend($1)", lab.rng.choice(pids)["pid"])
        finally:
            conn.terminate()


async def a_lane_dies(lab: Endurance) -> None:
    lab.rng.choice(lab.services).kill_lane(lab.rng)


async def a_service_dies(lab: Endurance) -> None:
    """It is killed with -9, and started again a little later."""
    service = lab.rng.choice(lab.services)
    service.kill()
    await asyncio.sleep(lab.rng.uniform(0, 2))
    service.start()


async def a_service_freezes(lab: Endurance) -> None:
    """It is stopped for longer than its lease, then goes on as if nothing had been."""
    service = lab.rng.choice(lab.services)
    service.freeze()
    await asyncio.sleep(LEASE_S * lab.rng.uniform(0.3, 2.0))
    service.thaw()


async def a_service_restarts(lab: Endurance) -> None:
    """It is updated, as operators do it."""
    service = lab.rng.choice(lab.services)
    await asyncio.to_thread(service.end)
    service.start()
