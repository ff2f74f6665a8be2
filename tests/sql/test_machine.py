"""Writers, readers and upkeep in overlapping transactions: every fold is exact at every commit.

Invariant 2 of the design on real connections. The same machine has to fail when one of the rules
it rests on is taken away.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.postgres import Server
from tests.sql.machine.rules import Machine
from tests.sql.machine.scratch import Patch, scratch_database
from tests.sql.machine.world import Seat

IS_LONG = os.environ.get("STANDPIPE_TEST_LONG") == "1"
SEED = int(os.environ.get("STANDPIPE_TEST_SEED", "1"))
HISTORIES = 3000 if IS_LONG else 40
STEPS = 60

reached: Counter[str] = Counter()


@contextmanager
def machine(
    server: Server, counts: Counter[str], faults: Sequence[Patch] = ()
) -> Iterator[type[Machine]]:
    """Return a machine with a database and sessions of its own."""
    with scratch_database(server, faults) as scratch, ExitStack() as stack:
        seats = [Seat(scratch, number) for number in range(4)]
        for seat in seats:
            stack.callback(lambda seat=seat: seat.conn.close())
        made = type("Sync", (Machine,), {"scratch": scratch, "seats": seats, "reached": counts})
        yield hypothesis.seed(SEED)(made)


def settings(histories: int, *phases: Phase) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(0 if IS_LONG else 300)
def test_every_fold_is_exact_whatever_overlaps(postgres: Server) -> None:
    with machine(postgres, reached) as made:
        run_state_machine_as_test(
            made, settings=settings(HISTORIES, Phase.generate, *([Phase.shrink] if IS_LONG else []))
        )
