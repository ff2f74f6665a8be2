"""The change log between sessions: who waits for whom, and that nobody else does.

What one writer does to the order is in test_change_log.py; here lanes, fetchers, apps and readers
meet.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
from typing import Any

import psycopg
import pytest

from tests.sql.driver import POST, Driver, Event, Op, cid, did
from tests.sql.waiting import (
    PATIENCE_S,
    Session,
    background,
    impatient,
    wait_until_blocked,
)

DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
OpenSession = Callable[..., Session]


@pytest.fixture
def lane(session: OpenSession) -> Driver:
    """Four repos with two records each, synchronized at rev 10."""
    lane = Driver(session())
    for number in (1, 2, 3, 4):
        lane.load(number, {"a": "lorem", "b": "ipsum"}, at=10, data="t10")
    return lane


def take_turns(lane: Driver, conn: Session) -> Driver:
    """Play a fetcher on a second connection, and let the lane have its lane back."""
    fetcher = Driver(conn)
    lane.token = lane.value("select token from sync.claim_lane(%s)", lane.source_id)
    lane.apply()
    return fetcher


def live(number: int, at: int, *ops: Op) -> Event:
    return Event(did(number), rev=at, since=at - 1, before=f"t{at - 1}", data=f"t{at}", ops=ops)


def delete(number: int, rkey: str) -> str:
    """Return a statement that deletes a record by hand."""
    return (
        "delete from sync.stored_records s using sync.repos r"
        f" where r.repo_id = s.repo_id and r.did = '{did(number)}' and s.rkey = '{rkey}'"
    )


def read_all(conn: Session, name: str = "app") -> list[tuple[str, str | None]]:
    """Read a consumer to its end."""
    told: list[tuple[str, str | None]] = []
    while rows := conn.execute("select * from sync.read_changes(%s)", [name]).fetchall():
        told += [(row["kind"], row["rkey"]) for row in rows]
    return told


# Apps in a transaction ---------------------------------------------------------------------------


def test_an_app_that_idles_after_untracking_stops_no_lane_reader_or_fetch(
    lane: Driver, session: OpenSession
) -> None:
    reader = impatient(session())
    reader.execute("select sync.create_consumer('app', p_start => 'now')")
    lane.track(5)
    idle = session(autocommit=False)
    idle.execute("select sync.untrack_repos(%s)", [[did(1)]])
    impatient(lane.conn)
    assert lane.apply(live(2, 11, Op("delete", "a"))) == {"applied": 1}
    assert read_all(reader) == [("delete", "a")]
    outcome = lane.reconcile(lane.claim(5), {"x": "new"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    assert read_all(reader) == [("create", "x")]
    impatient(session()).execute(delete(3, "a"))
    assert read_all(reader) == [("delete", "a")]
    idle.commit()
    assert read_all(reader) == [("purge", None)]


def test_apps_that_log_twice_beside_a_lane_never_deadlock_and_leave_a_dense_log(
    lane: Driver, session: OpenSession
) -> None:
    turns, start = 25, lane.position()
    reader = session()
    reader.execute("select sync.create_consumer('app')")
    apps = [session(), session()]
    for conn in (lane.conn, *apps):
        conn.execute("set lock_timeout = '60s'")

    def work_as_app(conn: Session, number: int) -> None:
        """Log twice in one transaction, the other app's repo between one's own."""
        for turn in range(turns):
            with conn.transaction():
                for repo in (number, 3 - number) if turn % 2 else (1, 2):
                    conn.execute("select sync.take_down_repos(%s)", [[did(repo)]])
                    conn.execute("select sync.restore_repos(%s)", [[did(repo)]])
                    if turn % 2:
                        break

    def work_as_lane() -> None:
        for turn in range(turns):
            lane.apply(live(3, 11 + turn, Op("create", f"k{turn}", "x")))

    with ThreadPoolExecutor() as pool:
        running = [pool.submit(work_as_app, conn, n) for n, conn in enumerate(apps, start=1)]
        running.append(pool.submit(work_as_lane))
        while not all(task.done() for task in running):
            read_all(reader)
        for task in running:
            task.result()
    ids = [row["change_id"] for row in lane.rows(
        "select change_id from sync.changes where change_id > %s order by 1", start)]  # fmt: skip
    assert ids == list(range(start + 1, start + 1 + len(ids)))
    assert len([1 for kind, rkey, _ in lane.log(start) if kind == "create"]) == turns
    assert lane.value(DEADLOCKS) == 0


def test_behind_an_app_that_took_the_lock_early_only_what_is_logged_waits(
    lane: Driver, session: OpenSession
) -> None:
    reader, observer = impatient(session()), session()
    reader.execute("select sync.create_consumer('app', p_start => 'now')")
    other = take_turns(lane, impatient(session()))
    lane.track(5)
    early = session(autocommit=False)
    early.execute("set constraints all immediate")
    early.execute(delete(1, "a"))
    with background(lane.conn, lambda: lane.apply(live(2, 11, Op("delete", "a")))) as batch:
        wait_until_blocked(observer, lane.conn)
        assert read_all(reader) == []
        assert other.claim(5).repo_id
        other.maintain()
        observer.execute("select count(*) from sync.records")
        assert not batch.done()
        early.commit()
        assert batch.result(PATIENCE_S) == {"applied": 1}
    assert read_all(reader) == [("delete", "a"), ("delete", "a")]


# A lane and a reconcile of the same repo ---------------------------------------------------------


@pytest.fixture
def fetcher(lane: Driver, session: OpenSession) -> Driver:
    """Play the fetcher on a connection of its own; repo 1 waits for a fetch."""
    fetcher = take_turns(lane, session())
    lane.conn.execute("select sync.resync_repos(%s)", [[did(1)]])
    return fetcher


def stage(fetcher: Driver, claim: Any, *, at: int) -> None:
    fetcher.stage_export(claim, {(POST, "a"): "lorem", (POST, "b"): "ipsum"}, at=at, data=f"t{at}")


RECONCILE = "select * from sync.reconcile_repos(%s, %s, %s)"


def test_an_event_held_by_an_open_batch_is_applied_after_the_reconcile_it_missed(
    lane: Driver, fetcher: Driver
) -> None:
    """The reconcile ends without seeing it; what comes next does not overtake it."""
    claim = fetcher.claim(1)
    fetcher.conn.autocommit = lane.conn.autocommit = False
    stage(fetcher, claim, at=10)
    fetcher.rows(RECONCILE, [claim.repo_id], [2], [cid("t10")])
    with lane.conn.transaction():
        assert lane.apply(live(1, 11, Op("delete", "a"))) == {"held": 1}
        fetcher.conn.commit()
        assert fetcher.state(1) == "synchronized"
        assert fetcher.texts(1) == {"a": "lorem", "b": "ipsum"}
        fetcher.conn.commit()
    assert lane.apply(live(1, 12, Op("update", "b", "new"))) == {"applied": 2}
    assert lane.texts(1) == {"b": "new"}
    assert lane.state(1) == "synchronized"
    assert lane.value("select count(*) from sync_priv.held_events") == 0
    lane.conn.commit()


def test_a_reconcile_that_meets_an_open_batch_steps_back_and_then_drains_what_it_held(
    lane: Driver, fetcher: Driver
) -> None:
    claim = fetcher.claim(1)
    lane.conn.autocommit = False
    with lane.conn.transaction():
        assert lane.apply(live(1, 11, Op("delete", "a"))) == {"held": 1}
        refused = fetcher.reconcile(claim, {"a": "lorem", "b": "ipsum"}, at=10, data="t10")
        assert refused["outcome"] == "busy"
    lane.conn.commit()
    done = fetcher.reconcile(claim, {"a": "lorem", "b": "ipsum"}, at=10, data="t10")
    assert done["outcome"] == "synchronized"
    assert fetcher.texts(1) == {"b": "ipsum"}
    assert fetcher.value("select count(*) from sync_priv.held_events") == 0


# Readers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_two_workers_share_a_shard_and_are_told_everything_once(
    lane: Driver, session: OpenSession, level: str
) -> None:
    """At REPEATABLE READ whoever comes second gets 40001, and tries again."""
    turns, is_over = 40, Flag()
    lane.conn.execute("select sync.create_consumer('app')")
    workers = [session(autocommit=False), session(autocommit=False)]

    def work(conn: Session) -> list[tuple[int, str, str]]:
        told: list[tuple[int, str, str]] = []
        while True:
            was_over = is_over.is_set()
            try:
                conn.execute(f"set transaction isolation level {level}".encode())
                conn.execute("select count(*) from sync.repos")
                rows = conn.execute("select * from sync.read_changes('app', 3)").fetchall()
                conn.commit()
            except psycopg.errors.SerializationFailure:
                conn.rollback()
                continue
            told += [(int(r["position"].split(".")[1]), r["kind"], r["rkey"]) for r in rows]
            if was_over and not rows:
                return told

    with ThreadPoolExecutor() as pool:
        running = [pool.submit(work, conn) for conn in workers]
        try:
            for turn in range(turns):
                lane.apply(live(1, 11 + turn, Op("create", f"k{turn}", "x")))
        finally:
            is_over.set()
        first, second = (task.result(60) for task in running)
    records = [rkey for _, kind, rkey in first + second if kind == "create" and rkey[0] == "k"]
    assert sorted(records) == sorted(f"k{turn}" for turn in range(turns))
    assert len(first + second) == turns + 8
    for told in (first, second):
        assert told == sorted(told, key=lambda each: each[0])


def test_a_listener_that_idles_in_a_transaction_keeps_no_commit_waiting(
    lane: Driver, session: OpenSession
) -> None:
    listener, starter = session(autocommit=False), session(autocommit=False)
    listener.execute("listen sync_changes")
    listener.commit()
    listener.execute("select 1")
    starter.execute("listen sync_changes")  # takes effect at its commit
    impatient(lane.conn)
    for turn in range(3):
        lane.apply(live(1, 11 + turn, Op("create", f"k{turn}", "x")))
    listener.commit()
    assert len(list(listener.notifies(timeout=20, stop_after=3))) >= 1
