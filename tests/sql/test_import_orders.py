"""Two workers, one of which dies, want one repo while the stream goes on and upkeep runs (A-51).

Each worker claims and reconciles, and two events come; upkeep gives up the fetches of dead
sessions, or, after a gap, all of them. Every order, with the first worker dying at every step: of
a first load with two commits, and of a resync whose second commit is told by a #sync alone;
`STANDPIPE_TEST_LONG=1` adds the other two.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations, product

import pytest

from tests.sql.driver import Driver, Event, did
from tests.sql.orders import Crowd, Export, Fetcher, OpenSession, commit, sync

FIRST, SECOND, EVENT, UPKEEP = "1", "2", "e", "u"
ACTORS = (FIRST, FIRST, SECOND, SECOND, EVENT, EVENT, UPKEEP)
ORDERS = sorted(set(permutations(ACTORS)))
# Where the first worker dies: before or after a commit.
CLAIMING, CLAIMED, RECONCILING, RECONCILED = "claiming", "claimed", "reconciling", "reconciled"
# Or only the session ends that claimed, and he comes back on another to reconcile.
SEVERED = "severed"
GAP, DEAD_SESSIONS = "after a gap", "of dead sessions"
# Whoever lives finds after a gap that his claim is worth nothing any more.
DEATHS = {GAP: (None,), DEAD_SESSIONS: (None, CLAIMING, CLAIMED, RECONCILING, RECONCILED, SEVERED)}
IS_LONG = os.environ.get("STANDPIPE_TEST_LONG") == "1"
# Whether the second commit is told by a #sync alone, and whether the history has begun already.
KINDS = list(product((False, True), repeat=2)) if IS_LONG else [(False, False), (True, True)]
Worker = tuple[str, str | None, int | None]  # its name, and how and in which turn it dies


@dataclass
class Case:
    """One repo, the order of what happens to it, and who fetches it."""

    number: int
    steps: tuple[str, ...]
    death: str | None
    is_silent: bool
    is_loaded: bool
    told: int = 0
    holder: str | None = None  # whose claim counts
    exports: dict[str, Export] = field(default_factory=dict)

    @property
    def did(self) -> str:
        """Return its DID."""
        return did(self.number)

    @property
    def host(self) -> str:
        """Return its PDS, which it shares with repos that the same sessions claim when it is."""
        turns = f"{self.steps.index(FIRST)}-{self.steps.index(SECOND)}"
        return f"https://{self.death}-{self.dies_at}-{turns}.test"

    @property
    def dies_at(self) -> int | None:
        """Return the turn in which the first worker dies."""
        turns = [turn for turn, actor in enumerate(self.steps) if actor == FIRST]
        return None if self.death is None else turns[self.death in (RECONCILING, RECONCILED)]

    def is_begun(self, turn: int) -> bool:
        """Tell whether who acts in a turn has acted before."""
        return self.steps[turn] in self.steps[:turn]

    def worker(self, turn: int) -> Worker | None:
        """Return which worker acts in a turn."""
        match self.steps[turn]:
            case "1":
                return FIRST, self.death, self.dies_at
            case "2":
                return SECOND, None, None
        return None

    def next_event(self) -> Event:
        """Return what the stream tells next."""
        self.told += 1
        is_sync = self.is_silent and self.told == 2
        return (sync if is_sync else commit)(self.did, self.told)


def cases(upkeep: str, upkeep_at: int, start: int) -> Iterator[Case]:
    """Return the orders with upkeep in one turn, with every death."""
    orders = [order for order in ORDERS if order[upkeep_at] == UPKEEP]
    every = product(orders, DEATHS[upkeep], KINDS)
    for number, (order, death, (is_silent, is_loaded)) in enumerate(every, start):
        yield Case(number, order, death, is_silent, is_loaded)


class Round:
    """The cases in which upkeep, which looks at all repos, comes at the same time."""

    def __init__(self, crowd: Crowd, lane: Driver, every: Sequence[Case]) -> None:
        self._crowd = crowd
        self._lane = lane
        self._every = every
        self._fetchers: dict[Worker, Fetcher] = {}
        self.reached: Counter[str] = Counter()
        loaded = [case.did for case in every if case.is_loaded]
        crowd.begin(lane, loaded, {case.did: case.host for case in every})

    def play(self, upkeep: str) -> None:
        """Play all turns, and look at what is stored after each."""
        for turn in range(len(ACTORS)):
            self._crowd.tick()
            self._states = self._crowd.heads()
            workers = {worker for c in self._every if (worker := c.worker(turn)) is not None}
            for worker in sorted(workers, key=str):
                self._work(worker, turn)
            if self._every[0].steps[turn] == UPKEEP:
                self._upkeep(upkeep, turn)
            told = [case for case in self._every if case.steps[turn] == EVENT]
            self.reached.update(self._lane.apply(*(case.next_event() for case in told)))
            self._crowd.check()

    def _work(self, worker: Worker, turn: int) -> None:
        """Let a worker act on its repos, and die if it has to."""
        if worker not in self._fetchers:
            self._fetchers[worker] = Fetcher(self._crowd.open())
        _, death, dies_at = worker
        fetcher = self._fetchers[worker]
        if dies_at == turn and death in (CLAIMING, RECONCILING):
            fetcher.conn.execute("begin")
        now = [case for case in self._every if case.worker(turn) == worker]
        if not fetcher.conn.closed:
            self._claim(worker, [case for case in now if not case.is_begun(turn)])
            self._reconcile(worker, [case for case in now if case.is_begun(turn)])
        if dies_at == turn:
            self._crowd.end(fetcher.conn)
            if death == SEVERED:
                self._fetchers[worker] = Fetcher(self._crowd.open())

    def _claim(self, worker: Worker, now: Sequence[Case]) -> None:
        """Claim what nobody holds, and nothing else."""
        if not now:
            return
        self._crowd.serve({case.host for case in now})
        found = self._fetchers[worker].claim()
        waiting = {name for name, (state, _) in self._states.items() if state != "synchronized"}
        free = waiting & {case.did for case in now if case.holder is None}
        assert found.keys() == free
        for case in now if worker[1] != CLAIMING else ():
            if case.did in found:
                case.holder = worker[0]
                case.exports[worker[0]] = Export(found[case.did], case.told)
        self.reached["claimed"] += len(found)

    def _reconcile(self, worker: Worker, now: Sequence[Case]) -> None:
        """Reconcile what was claimed; only who holds a repo may."""
        name, death, _ = worker
        now = [case for case in now if name in case.exports]
        outcomes = self._fetchers[worker].reconcile([case.exports[name] for case in now])
        for case in now:
            outcome = outcomes[case.exports[name].claim.repo_id]
            assert (outcome == "superseded") == (case.holder != name), case
            if case.holder == name and death != RECONCILING:
                case.holder = None
            self.reached[outcome] += 1

    def _upkeep(self, upkeep: str, turn: int) -> None:
        """Give up fetches: those of dead sessions, or all."""
        if upkeep == GAP:
            self._lane.value("select sync.recover_fetches()")
        else:
            self._lane.maintain()
        for case in self._every:
            is_dead = case.holder == FIRST and case.dies_at is not None and case.dies_at < turn
            if is_dead or upkeep == GAP:
                case.holder = None

    def heal(self) -> None:
        """Let upkeep and another worker finish, and everybody write once more."""
        for fetcher in self._fetchers.values():
            if not fetcher.conn.closed:
                self._crowd.end(fetcher.conn)
        self._lane.maintain()
        self.reached[f"{self._crowd.fetch_all(2)} rounds"] += 1
        outcomes = self._lane.apply(*(commit(case.did, 3) for case in self._every))
        assert outcomes == {"applied": len(self._every)}
        self._crowd.check()
        assert set(self._crowd.heads().values()) == {("synchronized", 3)}


@pytest.mark.scenario("A-51")
@pytest.mark.rule("BF-02", "BF-10", "BF-14", "SN-09", "BF-13")
@pytest.mark.parametrize(("upkeep", "expected"), [(GAP, 630), (DEAD_SESSIONS, 3780)])
def test_every_order_of_two_workers_and_every_death(
    session: OpenSession, upkeep: str, expected: int
) -> None:
    crowd = Crowd(session)
    lane = Driver(crowd.open())
    count = 0
    reached: Counter[str] = Counter()
    for upkeep_at in range(len(ACTORS)):
        every = list(cases(upkeep, upkeep_at, count + 1))
        count += len(every)
        played = Round(crowd, lane, every)
        played.play(upkeep)
        played.heal()
        reached += played.reached
    crowd.check_log()
    print(f"{count} orders of two workers: {dict(reached)}")
    assert len(ORDERS) == 630
    assert count == expected * len(KINDS)
    assert reached["1 rounds"] == len(ACTORS), "some repo was fetched in vain"
    for outcome in (
        "claimed",
        "superseded",
        "held",
        "applied",
        "broken",
        "dropped",
        "desynchronized",
    ):
        assert reached[outcome], outcome
