"""Every function that the service calls fails once, and everything is right again.

Which ones it calls is seen while nobody else does anything. Each fails as a full disk or a deadlock
would have it; those inside sync.apply_events() and the reconcile also with an error that the data
is to blame for: then a repo is put out of sync, and has to be fetched again by itself.
"""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from tests.acceptance.crash.arena import REASONS, SERVICE, Arena, arena
from tests.acceptance.crash.campaign import ATTEMPTS, EXPECTED_REASONS, START_TIMEOUT_S
from tests.acceptance.crash.lab import SESSIONS
from tests.acceptance.crash.sabotage import Function, Saboteur

IS_LONG = "STANDPIPE_TEST_LONG" in os.environ
SEED = int(os.environ.get("STANDPIPE_TEST_KILL_SEED", "20261123"))
RETRYABLE = ("53100", "40P01")
THE_DATAS_FAULT = "22003"
SHORT_RETRYABLE, SHORT_FAULTS = 4, 3
ROUNDS_SEEN = 4
PATIENCE_S = 3.0
PAUSE_S = 0.12
# Called by views for whoever looks at them, not for the service.
OF_VIEWS = {"sync_priv.cid_text", "sync_priv.base32_pair"}
# A fault of the data puts a repo out of sync under these reasons.
CONVICTIONS = {f"apply_{THE_DATAS_FAULT}", f"fetch_reconcile_{THE_DATAS_FAULT}"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if IS_LONG else 400)]


async def called_by_service(lab: Arena, saboteur: Saboteur) -> list[Function]:
    """Return the functions that are called while only the network and the service do anything."""
    for _ in range(4):
        await lab.operate()
    await lab.ask("select pg_stat_force_next_flush()")
    before = await saboteur.calls()
    await lab.launch()
    await lab.settle()
    for _ in range(ROUNDS_SEEN):
        lab.happen_in_peace()
        await lab.settle()
    await lab.stop()  # sessions tell what they have called when they end

    async def are_gone() -> bool:
        return not await lab.killer.fetchval(SESSIONS)

    await lab.until(are_gone, "sessions of a service that has ended live on")
    after = await saboteur.calls()
    return sorted(
        function
        for function, calls in after.items()
        if calls > before.get(function, 0) and function.name not in OF_VIEWS
    )


async def fail_once(
    lab: Arena, saboteur: Saboteur, function: Function, sqlstate: str, *, within: bool
) -> None:
    """Have one function fail, at the start of the service if it does not come by else."""
    began_at = time.monotonic()
    async with saboteur.failing(function, sqlstate, within=within) as holder:
        for attempt in range(ATTEMPTS):
            if attempt and not lab.is_dead:
                await lab.strike(SERVICE, None, None)
                await lab.look_at_ruins()
            left_s = START_TIMEOUT_S if attempt else PATIENCE_S  # of a service that works
            while not holder.is_closed() and left_s > 0:
                looked_at = time.monotonic()
                await lab.keep_running()
                await (lab.trickle(PAUSE_S) if within else lab.round())
                await asyncio.sleep(PAUSE_S)
                if await lab.works():
                    left_s -= time.monotonic() - looked_at
            if holder.is_closed():
                break
        assert holder.is_closed(), f"{function.name} was not called"
        await lab.recover()
    print(
        f"{function.name} failed with {sqlstate}: {time.monotonic() - began_at:.1f} s", flush=True
    )


@pytest.mark.rule("CU-04", "OP-10")
async def test_everything_converges_whichever_function_fails(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with arena(tmp_path, SEED) as lab:
        saboteur = Saboteur(lab.url, lab.killer)
        await saboteur.prepare()
        called = await called_by_service(lab, saboteur)
        inside = await saboteur.reachable()
        faulty = [function for function in called if function.name in inside]
        print(f"{len(called)} functions are called, {len(faulty)} of them inside")
        retryable = called
        if not IS_LONG:
            retryable = rng.sample(called, SHORT_RETRYABLE)
            faulty = rng.sample(faulty, SHORT_FAULTS)
        await lab.launch()
        await lab.recover()
        for function in retryable:
            await fail_once(lab, saboteur, function, rng.choice(RETRYABLE), within=False)
        for function in faulty:
            await fail_once(lab, saboteur, function, THE_DATAS_FAULT, within=True)
        await lab.stop()
        assert "Traceback" not in lab.service_log(None)
        reasons = {row["reason"] for row in await lab.conn.fetch(REASONS)}
        print(f"{len(retryable)} + {len(faulty)} functions failed; problems: {sorted(reasons)}")
        assert reasons & CONVICTIONS
        assert reasons - CONVICTIONS <= EXPECTED_REASONS
