"""How many collections one repo may be the first to bring, where the pattern lets it choose."""

import psycopg
import pytest

from tests.sql.driver import Driver, Event, Op, did

A, B = did(1), did(2)
QUOTA = 1_000
HIDDEN = "select count(*) from sync.collections where nsid ~ '^com.example'"


@pytest.fixture
def lane(session):
    driver = Driver(session())
    driver.conn.execute("select sync.track_collections(array['com.example.*'])")
    for number in (1, 2):
        driver.load(number, {("com.example.first", "a"): "lorem"}, at=10, data="t10")
    return driver


def nsid(number: int) -> str:
    return f"com.example.c{number}"


def creates(*numbers: int) -> list[Op]:
    return [Op("create", "a", "lorem", collection=nsid(number)) for number in numbers]


def commit(who: str, at: int, ops: list[Op]) -> Event:
    return Event(who, rev=at, since=at - 1, before=f"t{at - 1}", data=f"t{at}", ops=ops)


def bring(lane: Driver, count: int) -> None:
    """Let the first repo bring that many collections by one commit; no pattern names the rest."""
    ops = [*creates(*range(count)), Op("create", "a", "lorem", collection="org.elsewhere.note")]
    assert lane.apply(commit(A, 11, ops)) == {"applied": 1}


def intern(lane: Driver, *pairs: tuple[int, str]) -> list[int]:
    """Ask for ids as a fetcher does; returns the numbers of the repos over their quota."""
    ids = [lane.value("select repo_id from sync.repos where did = %s", did(n)) for n, _ in pairs]
    rows = lane.rows(
        "select r.did from sync.intern_collections(%s, %s) join sync.repos r using (repo_id)",
        ids,
        [name for _, name in pairs],
    )
    return [number for number in (1, 2) if {"did": did(number)} in rows]


@pytest.mark.rule("OP-03", "FA-09")
def test_the_commit_that_brings_one_too_many_is_not_applied_in_part(lane):
    bring(lane, QUOTA - 1)
    late = [Op("update", "a", "LATE", collection="com.example.first")]
    outcome = lane.apply(
        commit(A, 12, creates(QUOTA)), commit(A, 13, creates(QUOTA + 1)), commit(A, 14, late)
    )
    assert outcome == {"applied": 1, "broken": 2}
    query = "select count(*) from sync.stored_records where value ->> 'text' = 'LATE'"
    assert lane.value(query) == 0
    assert lane.state(1) == "desynchronized"
    assert lane.value("select error from sync.repos where did = %s", A) == "too_many_collections"
    assert lane.value(HIDDEN) == QUOTA + 1
    query = "select events from sync.problems where reason = 'too_many_collections' and did = %s"
    lane.maintain()
    assert lane.value(query, A) == 1


def test_a_commit_that_goes_beyond_leaves_none_of_its_records(lane):
    bring(lane, QUOTA - 1)
    mixed = [Op("update", "a", "LOREM", collection="com.example.first"), *creates(QUOTA, QUOTA + 1)]
    assert lane.apply(commit(A, 12, mixed)) == {"broken": 1}
    assert lane.value(HIDDEN) == QUOTA
    query = "select count(*) from sync.stored_records where value ->> 'text' = 'LOREM'"
    assert lane.value(query) == 0


@pytest.mark.rule("FA-09")
def test_the_repo_loads_again_once_it_brings_no_more(lane):
    bring(lane, QUOTA)
    lane.apply(commit(A, 12, creates(QUOTA)))
    assert lane.state(1) == "desynchronized"
    names = [(1, nsid(number)) for number in range(QUOTA + 1)]
    assert intern(lane, *names) == [1]
    assert lane.value(HIDDEN) == QUOTA + 1
    assert intern(lane, *names[:-1]) == []
    records = {(nsid(number), "a"): "lorem" for number in range(QUOTA)}
    outcome = lane.reconcile(lane.claim(1), records, at=13, data="t13")
    assert outcome["outcome"] == "synchronized"
    assert lane.apply(commit(A, 14, creates(QUOTA))) == {"broken": 1}


def test_what_others_brought_costs_nothing(lane):
    bring(lane, QUOTA)
    assert lane.apply(commit(B, 11, creates(*range(QUOTA)))) == {"applied": 1}
    assert lane.apply(commit(B, 12, creates(*range(QUOTA, 2 * QUOTA)))) == {"applied": 1}
    assert lane.apply(commit(A, 12, creates(2 * QUOTA - 1))) == {"applied": 1}
    assert lane.state(1) == lane.state(2) == "synchronized"


def test_a_fetch_over_the_quota_gives_no_ids_and_others_theirs(lane):
    crowd = [(1, nsid(number)) for number in range(QUOTA + 1)]
    assert intern(lane, *crowd, (2, nsid(5)), (2, "org.elsewhere.note")) == [1]
    assert lane.value(HIDDEN) == 2
    assert intern(lane, *crowd) == []
    assert lane.value(HIDDEN) == QUOTA + 2
    assert intern(lane, (1, nsid(QUOTA + 1))) == [1]


def test_two_sessions_that_bring_the_same_collection_count_it_once(lane, session):
    other: psycopg.Connection = session(autocommit=False)
    query = "select sync_priv.intern_brought(%s, %s)"
    other.execute(query, [[901], [nsid(1)]])
    lane.conn.execute("set lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        lane.conn.execute(query, [[902], [nsid(1)]])
    other.commit()
    lane.conn.execute(query, [[902], [nsid(1)]])
    rows = lane.rows("select repo_id from sync_priv.brought_collections where repo_id > 900")
    assert rows == [{"repo_id": 901}]
