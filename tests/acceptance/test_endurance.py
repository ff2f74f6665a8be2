"""Services in trouble under load: nothing is lost, nothing told twice, and nothing grows.

Short here; with STANDPIPE_TEST_LONG=1 a quarter of an hour at 1,000 commits a second with faults,
and five minutes of three services that are killed and frozen at 500. What was measured is printed.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from sync.embedded import EmbeddedPostgres
from sync.schema import upgrade
from sync.simnet import Simnet
from sync.simnet.traffic import generate
from tests.acceptance.endurance import Endurance, Trouble
from tests.acceptance.troubles import (
    a_getrepo_fails,
    a_lane_dies,
    a_resync,
    a_service_dies,
    a_service_freezes,
    a_service_restarts,
    a_session_is_ended,
    events_are_lost,
    the_plc_fails,
    the_relay_hangs_up,
    the_relay_restarts,
    the_server_restarts,
)
from tests.postgres import chosen_binaries

IS_LONG = bool(os.environ.get("STANDPIPE_TEST_LONG"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if IS_LONG else 240)]

SEED = int(os.environ.get("STANDPIPE_TEST_SEED", "20261126"))
MAX_GROWTH = 1.3


@dataclass(frozen=True)
class Load:
    """How much of it."""

    seconds: float
    commits_per_s: float
    every_s: float
    accounts: int = 60
    records: int = 30


FAULTS: tuple[Trouble, ...] = (
    a_getrepo_fails,
    a_resync,
    events_are_lost,
    the_relay_hangs_up,
    the_relay_restarts,
    the_plc_fails,
    the_server_restarts,
    a_session_is_ended,
)
DEATHS: tuple[Trouble, ...] = (
    a_lane_dies,
    a_service_dies,
    a_service_freezes,
    a_service_freezes,
    a_service_restarts,
)


@asynccontextmanager
async def endurance(folder: Path, load: Load) -> AsyncIterator[Endurance]:
    """Run a server of its own (with fsync), a network with accounts, and no service yet."""
    server = EmbeddedPostgres(folder / "postgres", binaries=chosen_binaries())
    with server as url:
        upgrade(url)
        async with Simnet(seed=SEED, pds_count=4, start_us=None) as net:
            generate(net.world, load.accounts, load.records)
            lab = Endurance(net, server, url, folder, seed=SEED)
            try:
                yield lab
            finally:
                lab.close()


@pytest.mark.rule("CU-04", "CU-05", "CU-11", "CU-15", "BF-16")
async def test_faults_under_load_cost_nothing_for_good(tmp_path: Path) -> None:
    load = Load(900, 1_000, 5, accounts=400) if IS_LONG else Load(14, 200, 0.8)
    async with endurance(tmp_path, load) as lab:
        await lab.prepare(services=1, lanes=2)
        await lab.run(
            commits_per_s=load.commits_per_s,
            seconds=load.seconds,
            troubles=FAULTS,
            every_s=load.every_s,
        )
        print(lab.report())
        assert set(lab.troubles) == {trouble.__name__ for trouble in FAULTS}
        assert lab.app.losses > 0
        lab.end()
        if IS_LONG:
            third = len(lab.samples.memory) // 3
            for column in (1, 2):
                sizes = [sample[column] for sample in lab.samples.memory]
                assert median(sizes[-third:]) < MAX_GROWTH * median(sizes[third:-third])


@pytest.mark.rule("CU-04", "CU-17", "BF-14")
async def test_services_that_die_and_freeze_lose_nothing(tmp_path: Path) -> None:
    load = Load(300, 500, 3, accounts=200) if IS_LONG else Load(22, 100, 1.0)
    async with endurance(tmp_path, load) as lab:
        await lab.prepare(services=3, lanes=4)
        await lab.run(
            commits_per_s=load.commits_per_s,
            seconds=load.seconds,
            troubles=DEATHS,
            every_s=load.every_s,
        )
        print(lab.report())
        logs = (tmp_path / "postgres" / "log").glob("*")
        fenced = sum(log.read_text().count("belongs to another process now") for log in logs)
        print(f"{fenced} writes of lanes refused that had been taken over")
        assert set(lab.troubles) == {trouble.__name__ for trouble in DEATHS}
        if IS_LONG:
            assert fenced > 0
        lab.end()
