"""Several sources tell of one repo: once is enough, and what one lost another may bring."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import pytest

from tests.sql.driver import Driver, Event, Op, did, rev

pytestmark = pytest.mark.rule("CU-17")

A = did(1)
COMMITS = 3
# Who tells of a commit: both, one, or nobody.
TOLD_BY = ((0, 1), (0,), (1,), ())
NOW, LATER, MUCH_LATER = "2026-11-26 12:00:00Z", "2026-11-26 12:00:10Z", "2026-11-26 13:00:00Z"


@pytest.fixture
def relays(session) -> tuple[Driver, Driver]:
    found = Driver(session()), Driver(session(), url="ws://other.test")
    at(NOW, *found)
    return found


def at(now: str, *drivers: Driver) -> None:
    """Set the time that sessions see."""
    for driver in drivers:
        driver.conn.execute("select set_config('sync.now', %s, false)", [now])


def load(sources: Sequence[Driver], *numbers: int) -> None:
    """Synchronize repos at rev 0, with every source at the filter's generation."""
    first = sources[0]
    first.track(*numbers)
    for source in sources[1:]:
        source.apply()
    for row in first.rows("select repo_id, did from sync.repos order by repo_id"):
        first.reconcile(first.claim_directly(row["did"]), {}, at=0, data="t0")


def commit(name: str, number: int) -> Event:
    """Return the number-th commit of a repo, which creates one record."""
    return Event(
        name,
        rev=number,
        since=number - 1,
        before=f"t{number - 1}",
        data=f"t{number}",
        ops=[Op("create", f"r{number}", f"text {number}")],
    )


def head(source: Driver, number: int = 1) -> str:
    """Return the rev of the stored head."""
    found: str = source.value(
        "select h.rev from sync.heads h join sync.repos using (repo_id) where did = %s", did(number)
    )
    return found


@dataclass
class Case:
    """One repo, and the order in which two sources tell of its commits."""

    number: int
    told_by: tuple[tuple[int, ...], ...]  # per commit
    turns: tuple[int, ...]  # whose turn it is, step by step
    queues: dict[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.queues = {
            source: [n + 1 for n, told in enumerate(self.told_by) if source in told]
            for source in (0, 1)
        }

    def event(self, step: int, source: int) -> list[Event]:
        """Return what a source tells in a step, if it is its turn."""
        if self.turns[step] != source or not self.queues[source]:
            return []
        return [commit(did(self.number), self.queues[source].pop(0))]

    @property
    def complete(self) -> int:
        """Return how many commits are told by somebody before the first one that is not."""
        return next((n for n, told in enumerate(self.told_by) if not told), COMMITS)

    @property
    def after_gap(self) -> tuple[tuple[int, ...], ...]:
        """Return by whom the commits behind the first lost one are told."""
        return tuple(told for told in self.told_by[self.complete + 1 :] if told)

    @property
    def expected(self) -> str:
        """Return what becomes of the repo before anybody's patience is over."""
        if not self.after_gap:
            return "synchronized"  # nothing shows that anything is missing
        # The break counts once both have told of the first commit behind the gap, or a later one.
        first_told = next(n for n in range(self.complete + 1, COMMITS) if self.told_by[n])
        have_told = {source for told in self.told_by[first_told:] for source in told}
        return "desynchronized" if have_told == {0, 1} else "waiting"


def cases() -> Iterator[Case]:
    """Return every order and every loss."""
    steps = range(2 * COMMITS)
    number = 0
    for told_by in product(TOLD_BY, repeat=COMMITS):
        for firsts in combinations(steps, COMMITS):
            number += 1
            yield Case(number, told_by, tuple(int(step not in firsts) for step in steps))


@pytest.mark.rule("CU-16")
def test_every_order_and_every_loss_of_two_sources(relays) -> None:
    every = list(cases())
    assert len(every) == 4**COMMITS * 20 == 1280
    load(relays, *(case.number for case in every))
    for step in range(2 * COMMITS):
        for source, driver in enumerate(relays):
            driver.apply(*(event for case in every for event in case.event(step, source)))
    assert not any(queue for case in every for queue in case.queues.values())
    check(relays[0], every, patient=True)
    at(LATER, *relays)
    for _ in range(len(every) // 500 + 1):  # so many repos at a time
        relays[1].apply()
    check(relays[0], every, patient=False)


def check(driver: Driver, every: Sequence[Case], *, patient: bool) -> None:
    """Compare states, heads, records and the log with what each case must come to."""
    rows = driver.rows(
        "select r.did, r.sync_state, r.rev, r.held_events, s.stored, c.told"
        "  from sync.repo_status r"
        "  left join (select did, array_agg(rkey order by rkey) as stored"
        "               from sync.records group by did) s using (did)"
        "  left join (select did, array_agg(rkey order by change_id) as told"
        "               from sync.change_log where kind = 'create' group by did) c using (did)"
    )
    found = {row["did"]: row for row in rows}
    for case in every:
        row = found[did(case.number)]
        rkeys = [f"r{n + 1}" for n in range(case.complete)]
        waits = case.expected == "waiting" and patient
        state = "synchronized" if waits or case.expected == "synchronized" else "desynchronized"
        assert (row["sync_state"], row["rev"]) == (state, rev(case.complete)), case
        assert (row["stored"] or [], row["told"] or []) == (rkeys, rkeys), case
        assert (row["held_events"] > 0) == waits, case


def test_a_break_with_one_source_counts_at_once(relays) -> None:
    relays[0].conn.execute("select sync.pause_source('ws://other.test')")
    load(relays, 1)
    assert relays[0].apply(commit(A, 2)) == {"broken": 1}
    assert relays[0].state(1) == "desynchronized"


@pytest.mark.parametrize(
    ("pds", "outcome"), [("https://other.test", "early"), ("https://pds.test", "broken")]
)
def test_a_pds_is_waited_for_only_by_the_repos_that_live_on_it(
    session, pds: str, outcome: str
) -> None:
    relay, host = Driver(session()), Driver(session(), url="wss://other.test", kind="pds")
    load((relay, host), 1)
    relay.locate(1, pds=pds)
    assert relay.apply(commit(A, 2)) == {outcome: 1}


def test_the_third_source_is_waited_for_when_two_have_told(relays, session) -> None:
    third = Driver(session(), url="ws://third.test")
    at(NOW, third)
    load((*relays, third), 1)
    assert relays[0].apply(commit(A, 2)) == {"early": 1}
    assert relays[1].apply(commit(A, 2)) == {"early": 2}
    assert third.apply(commit(A, 1)) == {"applied": 2, "stale": 1}
    assert head(third) == rev(2)
    assert third.value("select count(*) from sync_priv.held_events") == 0


def test_what_is_signed_but_wrong_gives_way_to_a_good_copy(relays) -> None:
    load(relays, 1)
    broken = Event(A, kind="broken", rev=1, reason="block_missing")
    assert relays[0].apply(broken) == {"early": 1}
    assert relays[1].apply(commit(A, 1)) == {"applied": 1, "stale": 1}
    assert (relays[0].state(1), head(relays[0])) == ("synchronized", rev(1))


def test_what_both_say_is_wrong_is_wrong(relays) -> None:
    load(relays, 1)
    broken = Event(A, kind="broken", rev=1, reason="block_missing")
    relays[0].apply(broken)
    assert relays[1].apply(broken) == {"broken": 1, "stale": 1}
    assert relays[0].state(1) == "desynchronized"


def test_a_status_in_between_delays_nothing(relays) -> None:
    load(relays, 1)
    relays[0].apply(commit(A, 2))
    relays[1].apply(Event(A, kind="identity"), commit(A, 1))
    relays[1].apply()
    assert head(relays[0]) == rev(2)


def test_a_fetch_does_not_wait(relays) -> None:
    load(relays, 1)
    relays[0].apply(commit(A, 3))
    relays[0].conn.execute("select sync.resync_repos(array[%s])", [A])
    claim = relays[0].claim(1)
    outcome = relays[0].reconcile(claim, {"r1": "text 1"}, at=1, data="t1")
    assert outcome["outcome"] == "desynchronized", "rev 3 was told, and the export lacks rev 2"


@pytest.mark.rule("D-03", "FA-09", "SN-11")
def test_many_breaks_are_fetched_more_and_more_slowly(relays) -> None:
    lane = relays[0]
    lane.conn.execute("select sync.pause_source('ws://other.test')")
    load(relays, 1)
    waits = []
    for number in range(1, 14):
        lane.apply(Event(A, kind="broken", rev=2 * number, reason="block_missing"))
        waits.append(
            lane.value(
                "select extract(epoch from next_fetch_at - sync_priv.clock())::int from sync.repos"
            )
        )
        lane.reconcile(lane.claim_directly(1), {}, at=2 * number + 1, data=f"t{2 * number + 1}")
    assert waits == [0] * 10 + [60, 120, 180]
    at(MUCH_LATER, lane)
    lane.apply(Event(A, kind="broken", rev=100, reason="block_missing"))
    assert lane.value("select next_fetch_at <= sync_priv.clock() from sync.repos")
