"""A lane that is killed before or after any of its commits, with any batches (A-09).

Two commits and an account that goes and comes back arrive in batches cut in every way. Each
batch is committed; or the process is killed before its commit, or after it; or another process
takes the lane over while it works; or the relay sends the batch again. Up to two batches of a
case suffer; `STANDPIPE_TEST_LONG=1` has all of them suffer.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import psycopg
import pytest

from tests.sql.driver import Driver, Event, did
from tests.sql.orders import Crowd, OpenSession, Session, commit

COMMITTED, KILLED_BEFORE, KILLED_AFTER = "committed", "killed before", "killed after"
OVERTAKEN, AGAIN = "overtaken", "sent again"
IS_LONG = os.environ.get("STANDPIPE_TEST_LONG") == "1"
FAULTS = (COMMITTED, KILLED_BEFORE, KILLED_AFTER, OVERTAKEN, AGAIN)


def events(name: str) -> list[Event]:
    """Return what the relay has: the event with seq n + 1 at place n."""
    return [
        commit(name, 1),
        commit(name, 2),
        Event(name, kind="account", is_active=False, status="deactivated"),
        Event(name, kind="account", is_active=True),
    ]


SEQS = len(events(""))


@dataclass
class Case:
    """One repo on a lane of its own: how its events are cut, and what becomes of each batch."""

    number: int
    ends: tuple[int, ...]  # the seq that ends each batch
    faults: tuple[str, ...]
    lane: Driver = field(init=False)

    def fault(self, turn: int) -> str | None:
        """Return what happens to the batch of a turn."""
        return self.faults[turn] if turn < len(self.faults) else None

    def open(self, conn: Session) -> None:
        """Let a process take the lane; it goes on where the cursor is."""
        self.lane = Driver(conn, lane=self.number)

    def batch(self, turn: int) -> list[Event]:
        """Return what a relay sends behind the cursor, up to where a batch ends."""
        return events(did(self.number))[self.lane.cursor : self.ends[turn]]


def cases() -> Iterator[Case]:
    """Return every way to cut the events, with every fault of every batch."""
    number = 0
    for cuts in product((False, True), repeat=SEQS - 1):
        ends = (*(seq for seq, is_cut in enumerate(cuts, 1) if is_cut), SEQS)
        for faults in product(FAULTS, repeat=len(ends)):
            if IS_LONG or faults.count(COMMITTED) >= len(ends) - 2:
                number += 1
                yield Case(number, ends, faults)


class Game:
    """All cases, and the process that has their lanes."""

    def __init__(self, crowd: Crowd, every: Sequence[Case]) -> None:
        self._crowd = crowd
        self._every = every
        self._process = crowd.open()
        for case in every:
            case.open(self._process)

    def play(self, turn: int) -> None:
        """Let each lane apply its next batch, whatever happens to it."""
        for fault in FAULTS:
            now = [case for case in self._every if case.fault(turn) == fault]
            if fault in (KILLED_BEFORE, KILLED_AFTER):
                self._kill(now, turn, is_open=fault == KILLED_BEFORE)
                continue
            for case in now:
                self._apply(case, turn, fault)
        self._crowd.check()

    def _apply(self, case: Case, turn: int, fault: str) -> None:
        batch, old = case.batch(turn), case.lane
        if fault == OVERTAKEN:
            case.open(self._process)
        case.lane.apply(*batch)
        if fault == OVERTAKEN:
            with pytest.raises(psycopg.Error) as refused:
                old.apply(*batch)
            assert refused.value.sqlstate == "SY101"
        if fault == AGAIN:
            case.lane.cursor -= len(batch)
            assert "applied" not in case.lane.apply(*batch), case

    def _kill(self, now: Sequence[Case], turn: int, *, is_open: bool) -> None:
        """Kill a process with some lanes, with its transaction open or not; start another."""
        doomed = self._crowd.open()
        doomed.execute("select sync.open_stage()")
        if is_open:
            doomed.execute("begin")
        for case in now:
            case.lane.conn = doomed
            case.lane.apply(*case.batch(turn))
            if is_open:  # else the commit does that
                doomed.execute("delete from pg_temp.stage_events")
        self._crowd.end(doomed)
        for case in now:
            case.open(self._process)
            begins_at = case.ends[turn - 1] if turn else 0
            assert case.lane.cursor == (begins_at if is_open else case.ends[turn]), case
            if is_open:
                case.lane.apply(*case.batch(turn))


@pytest.mark.scenario("A-09", "A-07")
@pytest.mark.rule("CU-02", "CU-04", "CU-05", "CM-15", "CM-39", "AC-18")
def test_every_batch_and_every_kill(session: OpenSession) -> None:
    every = list(cases())
    print(f"{len(every)} ways to cut {SEQS} events and to kill what applies them")
    assert len(every) == (1080 if IS_LONG else 376)
    crowd = Crowd(session)
    lane = Driver(crowd.open())
    crowd.load(lane, [did(case.number) for case in every])
    game = Game(crowd, every)
    for turn in range(SEQS):
        game.play(turn)
    check(crowd, every)
    # The next service has one lane for all: it begins at the lowest cursor.
    lane.value("select sync_priv.set_lanes(%s, 1)", lane.source_id)
    lane = Driver(crowd.open())
    assert lane.cursor == lane.value("select min(seq) from sync_priv.lanes")
    lane.apply()
    assert crowd.fetch_all(2) == 1
    assert lane.apply(*(commit(did(case.number), 3) for case in every)) == {"applied": len(every)}
    crowd.check()
    assert set(crowd.heads().values()) == {("synchronized", 3)}
    crowd.check_log()


def check(crowd: Crowd, every: Sequence[Case]) -> None:
    """Compare cursors, states and what was told of accounts with what each case comes to."""
    cursors = crowd.rows("select lane, seq from sync_priv.lanes where lane > 0")
    assert {row["lane"]: row["seq"] for row in cursors} == {c.number: SEQS for c in every}
    told = crowd.rows(
        "select did, array_agg((value ->> 'active')::boolean order by change_id) as said"
        "  from sync.change_log where kind = 'account' group by did"
    )
    said = {row["did"]: row["said"] for row in told}
    heads = crowd.heads()
    for case in every:
        # Who goes and comes back within a batch was never seen to be away.
        was_away = 3 in case.ends
        state = "desynchronized" if was_away else "synchronized"
        assert heads[did(case.number)] == (state, 2), case
        assert said.get(did(case.number), []) == ([False, True] if was_away else []), case
