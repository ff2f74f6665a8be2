"""Commits that arrive before, during and after a fetch, in every order (A-48).

The relay tells three commits, of which some are lost, one is told twice, or they come in another
order; in between a fetch is claimed and reconciled, with an export of any age.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import pytest

from tests.sql.driver import Claim, Driver, Event, did
from tests.sql.orders import Crowd, Export, Fetcher, OpenSession, commit

TOLD = (1, 2, 3)
CLAIM, RECONCILE = "claim", "reconcile"
Step = int | str
Standing = tuple[str, int | None]


def words() -> list[tuple[int, ...]]:
    """Return what a relay may make of three commits."""
    lost = [kept for count in range(len(TOLD)) for kept in combinations(TOLD, count)]
    twice = {
        (*TOLD[:place], again, *TOLD[place:])
        for place in range(1, len(TOLD) + 1)
        for again in TOLD[:place]
    }
    return [*lost, *permutations(TOLD), *sorted(twice)]


@dataclass(frozen=True)
class Case:
    """One repo: what happens to it, in which order."""

    number: int
    steps: tuple[Step, ...]
    export: int  # the rev that the fetch brings
    is_loaded: bool  # the beginning of the history is stored when it starts

    @property
    def did(self) -> str:
        """Return its DID."""
        return did(self.number)

    @property
    def host(self) -> str:
        """Return its PDS; the fetches of a host start together."""
        return f"https://t{self.steps.index(CLAIM)}.test"

    def at(self, turn: int) -> Step | None:
        """Return what happens in a turn."""
        return self.steps[turn] if turn < len(self.steps) else None

    @property
    def expected(self) -> Standing:
        """Return what has become of the repo when all has happened."""
        repo = Expected(0 if self.is_loaded else None)
        for step in self.steps:
            if step == CLAIM:
                repo.state = "fetching"
            elif step == RECONCILE:
                repo.reconcile(self.export)
            else:
                repo.tell(int(step))
        return repo.state, repo.head

    @property
    def is_honest(self) -> bool:
        """Tell whether the relay lost and moved nothing, and the export is no older than it."""
        told = tuple(step for step in self.steps if isinstance(step, int))
        return told == TOLD and self.export >= self.steps.index(CLAIM)


@dataclass
class Expected:
    """What is to become of a repo, one event at a time."""

    head: int | None
    state: str = "desynchronized"

    def __post_init__(self) -> None:
        self.seen = self.head or 0
        self.held: list[int] = []

    def tell(self, number: int) -> None:
        """Hear of a commit."""
        if self.state == "fetching":
            self.held.append(number)
        if self.state == "synchronized":
            self._continue(number)
        self.seen = max(self.seen, number)

    def reconcile(self, export: int) -> None:
        """Take an export for the present, then what was held."""
        self.head, self.state = export, "synchronized"
        for number in sorted(self.held):
            self._continue(number)
        if self.head < self.seen:
            self.state = "desynchronized"

    def _continue(self, number: int) -> None:
        assert self.head is not None
        if self.state == "synchronized" and number > self.head:
            self.state = "synchronized" if number == self.head + 1 else "desynchronized"
            self.head += self.state == "synchronized"


def cases() -> Iterator[Case]:
    """Return every order of every word with a fetch of every age."""
    number = 0
    for word in words():
        for places in combinations(range(len(word) + 2), 2):
            steps: list[Step] = list(word)
            steps.insert(places[0], CLAIM)
            steps.insert(places[1], RECONCILE)
            for export, is_loaded in product(range(len(TOLD) + 1), (False, True)):
                number += 1
                yield Case(number, tuple(steps), export, is_loaded)


@pytest.mark.scenario("A-48", "A-49")
@pytest.mark.rule("BF-03", "BF-08", "BF-10", "BF-11", "CM-15", "CM-17", "CM-18", "D-19")
def test_every_order_of_commits_and_a_fetch(session: OpenSession) -> None:
    every = list(cases())
    print(f"{len(every)} orders of a fetch and the commits around it")
    assert len(every) == 1424
    crowd = Crowd(session)
    lane = Driver(crowd.open())
    loaded = [case.did for case in every if case.is_loaded]
    crowd.begin(lane, loaded, {case.did: case.host for case in every})
    claims: dict[str, Claim] = {}
    fetcher = Fetcher(crowd.open())
    for turn in range(max(len(case.steps) for case in every)):
        now = [case for case in every if case.at(turn) is not None]
        claims |= claim(crowd, fetcher, [case for case in now if case.at(turn) == CLAIM])
        fetcher.reconcile([Export(claims[c.did], c.export) for c in now if c.at(turn) == RECONCILE])
        lane.apply(*events(now, turn))
        crowd.check()
    standings = crowd.heads()
    for case in every:
        assert standings[case.did] == case.expected, case
        assert not case.is_honest or case.expected == ("synchronized", 3), "fetched in vain"
    heal(crowd, lane, every)


def claim(crowd: Crowd, fetcher: Fetcher, now: Sequence[Case]) -> dict[str, Claim]:
    """Claim the repos whose turn it is."""
    crowd.tick()
    crowd.serve({case.host for case in now})
    found = fetcher.claim()
    assert found.keys() == {case.did for case in now}
    crowd.serve(set())
    return found


def events(now: Sequence[Case], turn: int) -> Iterator[Event]:
    """Yield the commits that are told in a turn."""
    for case in now:
        step = case.at(turn)
        if isinstance(step, int):
            yield commit(case.did, step)


def heal(crowd: Crowd, lane: Driver, every: Sequence[Case]) -> None:
    """Let everybody write once more: whoever missed something is fetched, all are level."""
    whole = sum(standing == ("synchronized", 3) for standing in crowd.heads().values())
    outcomes = lane.apply(*(commit(case.did, 4) for case in every))
    assert outcomes["applied"] == whole
    assert crowd.fetch_all(4) == 1
    crowd.check()
    assert set(crowd.heads().values()) == {("synchronized", 4)}
    crowd.check_log()
