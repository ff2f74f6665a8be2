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
HISTORIES = 1000 if IS_LONG else 60
STEPS = 60

reached: Counter[str] = Counter()
# What has to come about in a run, besides every rule.
EXPECTED = {
    "batches", "empty batches", "rows of the log", "rows of walks", "walks", "outrun",
    "outrun, starts over", "replay all", "replay some", "forget", "create from now",
    "create from beginning", "kills", "rollbacks", "commits", "locked",
    "partitions dropped", "put", "remove", "set_identity", "take_down_repos", "restore_repos",
    "track_repos", "untrack_repos", "track_collections", "untrack_collections", "resync_repos",
    "events applied", "events held", "events status", "reconciled: synchronized", "upkeep",
    "reads beside own writes", "reads under an old snapshot", "checks inside a commit",
    "checks of a walk", "checks within a repo", "checks with purges owed", "shards at rest",
    "repos compared with the network",
}  # fmt: skip


@contextmanager
def machine(
    server: Server, counts: Counter[str], faults: Sequence[Patch] = ()
) -> Iterator[type[Machine]]:
    """Return a machine with a database and sessions of its own."""
    with scratch_database(server, faults) as scratch, ExitStack() as stack:
        seats = [Seat(scratch, number) for number in range(4)]
        for seat in seats:
            stack.callback(seat.close)
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
    phases = (Phase.generate, Phase.shrink) if IS_LONG else (Phase.generate,)
    with machine(postgres, reached) as made:
        run_state_machine_as_test(made, settings=settings(HISTORIES, *phases))


FAULTS = {
    "stored rows come before the log is read": Patch(
        "80_consumers/next_changes.sql", "v_position = v_head and ", ""
    ),
    "a restart forgets tombstones": Patch(
        "80_consumers/next_repos.sql",
        "where r.repo_id > p_after",
        "where r.repo_id in (select v.repo_id from sync_priv.visible_repos v)"
        " and r.repo_id > p_after",
    ),
    "a repo that is purged stays visible": Patch(
        "10_helpers/visible_repos.sql",
        "where coalesce(p.repo_id, 0) = r.repo_id",
        "where false and p.repo_id = r.repo_id",
    ),
    "own rows come before they are numbered": Patch(
        "80_consumers/next_changes.sql",
        "where m.xid = pg_current_xact_id_if_assigned()",
        "where false",
    ),
    "a snapshot row makes nothing pending": Patch(
        "80_consumers/log_steps.sql", "s.change_id < c.change_id) then false", "false) then false"
    ),
}


# Each of these takes the machine a few histories to find; the others take longer.
QUICK = list(FAULTS)[:3]


@pytest.mark.slow
@pytest.mark.timeout(0 if IS_LONG else 300)
@pytest.mark.parametrize("fault", FAULTS if IS_LONG else QUICK)
def test_it_fails_when(fault: str, postgres: Server) -> None:
    wrong = "is not exact|does not fit|not what the log says|pending without a purge"
    with (
        machine(postgres, Counter(), [FAULTS[fault]]) as made,
        pytest.raises(AssertionError, match=wrong),
    ):
        run_state_machine_as_test(made, settings=settings(2 * HISTORIES, Phase.generate))


@pytest.mark.slow
def test_everything_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    if not reached:
        pytest.skip("the machine did not run")
    with capsys.disabled():
        print("\n" + "\n".join(f"{count:8} {name}" for name, count in sorted(reached.items())))
    rules = {f"rule {rule.function.__name__}" for rule in Machine.setup_state().rules}
    assert {name for name in rules | EXPECTED if not reached[name]} == set()
