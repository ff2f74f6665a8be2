"""Everything is killed, everywhere, and everything is right again.

A first run without kills shows the points: every statement of every part of the service, every
request to the network. In the long form each is visited before it is asked for, right after it was
sent and when it is answered; in the short one a session of each part is ended once and everybody
else is killed a few times. Afterwards a reader of the log, the tables and the honest network say
the same, nothing is told twice, and nothing is left lying around.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acceptance.crash.arena import (
    BACKEND,
    LANE_PROCESS,
    POSTMASTER,
    READER,
    REASONS,
    SERVICE,
    VICTIMS,
    arena,
)
from tests.acceptance.crash.campaign import EXPECTED_REASONS, Campaign
from tests.acceptance.crash.gate import AFTER, BEFORE, DURING, Point, Visit

IS_LONG = "STANDPIPE_TEST_LONG" in os.environ
SEED = int(os.environ.get("STANDPIPE_TEST_KILL_SEED", "20261123"))
MIN_KILLS = 200 if IS_LONG else 25
BATCH = 2 if IS_LONG else 3
MIN_HELD = 3 if IS_LONG else 1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if IS_LONG else 400)]


# Beside the sessions, in the short form.
OTHERS = (SERVICE, SERVICE, LANE_PROCESS, LANE_PROCESS, POSTMASTER, READER, READER)
EXPORT = Point("network", "pds sync.getRepo")  # while it is asked for, commits are held
KEEPING = Point("projection", "sync.run_projection")
EMBEDDING = Point("embedding", "sync.store_embeddings")
BUSY_PARTS = {"lane", "reconcile", "fetches", "network"}


def short_plan(rng: random.Random, visits: Sequence[Visit]) -> list[tuple[Visit, str]]:
    """End one session of every part, and kill everybody else where most happens."""
    parts: dict[str, list[Visit]] = {}
    for visit in visits:
        parts.setdefault(visit.point.part, []).append(visit)
    plan = [(rng.choice(found), BACKEND) for part, found in parts.items() if part != "network"]
    busy = [visit for visit in visits if visit.point.part in BUSY_PARTS]
    plan += zip(rng.sample(busy, len(OTHERS)), OTHERS, strict=True)
    return plan


@pytest.mark.scenario("A-09", "A-51")
@pytest.mark.rule("CU-04", "CU-05", "BF-02", "BF-13", "BF-14")
async def test_everything_converges_whatever_is_killed_wherever(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with arena(tmp_path, SEED) as lab:
        campaign = Campaign(lab, SEED)
        await campaign.record(rounds=6 if IS_LONG else 4)
        if IS_LONG:
            plan = [(visit, campaign.choose_victim()) for visit in campaign.visits]
        else:
            plan = short_plan(rng, campaign.visits)
        plan += [(Visit(EXPORT, BEFORE), SERVICE)] * (MIN_HELD + 1)
        plan += [(Visit(KEEPING, DURING), BACKEND), (Visit(KEEPING, AFTER), SERVICE)]
        if lab.has_search:
            plan += [(Visit(EMBEDDING, DURING), BACKEND), (Visit(EMBEDDING, DURING), SERVICE)]
        rng.shuffle(plan)
        await campaign.run(plan, batch=BATCH)
        # What is rare may not come while one waits for it: each has one more time.
        again = [(visit, campaign.choose_victim()) for visit in sorted(campaign.missed)]
        campaign.missed.clear()
        await campaign.run(again, batch=1)
        missed = campaign.missed.copy()
        if IS_LONG:
            late = [(visit, campaign.choose_victim()) for visit in campaign.late_visits()]
            await campaign.run(late, batch=BATCH)  # some of these are too rare to be waited for
        await lab.wait_for_embeddings()
        await lab.stop()
        assert "Traceback" not in lab.service_log(None)
        print(campaign.summary())
        reasons = {row["reason"] for row in await lab.conn.fetch(REASONS)}
        assert reasons <= EXPECTED_REASONS
        assert set(campaign.victims) == set(VICTIMS)
        assert lab.kills.total >= MIN_KILLS
        assert lab.held_at_kills >= MIN_HELD
        assert missed == set()
