"""What is told offline of a repo's messages is what the database makes of them."""

import random
from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import DictRow

from sync.atproto.chain import Head
from sync.atproto.verify import VerifiedCommit, VerifiedSync
from tests.sql.driver import Driver, Event, cid, did, rev

WALKS, EVENTS = 60, 6
OUTCOMES = {
    "ok": "applied",
    "stale": "stale",
    "chain_break": "broken",
    "sync_differs": "broken",
    "broken": "broken",
    "dropped": "dropped",
}


def random_event(rng: random.Random, number: int) -> Event:
    """Make an event around a few revs and trees, so that many of them meet."""
    at, data = rng.randrange(1, 5), rng.choice("abc")
    match rng.choice(["commit"] * 6 + ["sync", "broken"]):
        case "sync":
            return Event(did(number), "sync", rev=at, data=data)
        case "broken":
            return Event(did(number), "broken", rev=at, reason="bad_op")
    before, since = rng.choice(["a", "b", None]), rng.choice([1, 2, 3, None])
    return Event(did(number), rev=at, since=since, before=before, data=data)


def follow(head: Head, event: Event) -> str:
    """Return the verdict without a database."""
    assert event.rev is not None
    if event.kind == "broken":
        is_fresh = rev(event.rev) > head.rev
        head.pass_broken(rev(event.rev))
        return "broken" if is_fresh else "stale"
    if event.kind == "sync":
        return head.follow(VerifiedSync(1, event.did, rev(event.rev), cid(event.data), b"")).verdict
    commit = VerifiedCommit(
        seq=1,
        did=event.did,
        rev=rev(event.rev),
        since=None if event.since is None else rev(event.since),
        prev_data=None if event.before is None else cid(event.before),
        data=cid(event.data),
        commit_block=b"",
        ops=(),
        skipped=(),
    )
    return head.follow(commit).verdict


@pytest.mark.rule("CM-15", "CM-17", "CM-18", "CM-19", "SN-05", "SN-07", "SN-08", "D-03")
def test_random_messages_end_the_same_way_with_and_without_a_database(
    session: Callable[..., psycopg.Connection[DictRow]],
) -> None:
    driver = Driver(session())
    rng = random.Random(7)
    seen = set()
    for number in range(WALKS):
        driver.load(number, {}, at=1, data="a")
        head = Head(rev(1), cid("a"))
        for _ in range(EVENTS):
            event = random_event(rng, number)
            verdict = follow(head, event)
            assert driver.apply(event) == {OUTCOMES[verdict]: 1}, (number, event)
            seen.add(verdict)
            if OUTCOMES[verdict] == "broken":
                break  # from here on the database waits for a fetch
    assert seen == OUTCOMES.keys() - {"dropped"}


@pytest.mark.rule("AC-02")
def test_an_account_that_is_not_active_drops_the_same_messages(
    session: Callable[..., psycopg.Connection[DictRow]],
) -> None:
    driver = Driver(session())
    driver.load(1, {}, at=1, data="a")
    head = Head(rev(1), cid("a"))
    driver.apply(Event(did(1), "account", is_active=False, status="suspended"))
    head.set_active(is_active=False)
    event = Event(did(1), rev=2, since=1, before="a", data="b")
    assert driver.apply(event) == {OUTCOMES[follow(head, event)]: 1} == {"dropped": 1}
