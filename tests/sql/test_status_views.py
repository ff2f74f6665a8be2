"""The views to look at: status, repo_status, host_status, source_status, consumer_status,
problems, change_log."""

import re
from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import LIKE, did
from tests.sql.readers import World, make_reader

Session = psycopg.Connection[DictRow]


def one(db: Session, query: str) -> DictRow:
    (row,) = db.execute(query.encode()).fetchall()
    return row


def test_status_counts_repos_by_state(db: Session) -> None:
    world = World(db, repos=5)
    db.execute("update sync.repos set sync_state = 'fetching' where did in (%s, %s)",
               [did(0), did(1)])  # fmt: skip
    db.execute("update sync.repos set sync_state = 'synchronized' where did = %s", [did(0)])
    world.take_down(0)
    world.untrack(2)
    row = one(db, "select * from sync.status")
    assert {k: row[k] for k in ("repos", "pending", "fetching", "synchronized", "failed")} == {
        "repos": 4, "pending": 2, "fetching": 1, "synchronized": 1, "failed": 0,
    }  # fmt: skip
    assert (row["hidden"], row["tombstones"], row["purges"]) == (1, 1, 1)


def test_status_is_one_row_in_an_empty_database(db: Session) -> None:
    row = one(db, "select * from sync.status")
    assert (row["repos"], row["records_estimate"], row["problems"]) == (0, 0, 0)
    assert row["lag_seconds"] is None


def test_status_shows_the_end_of_the_log_as_a_position(db: Session) -> None:
    world = World(db)
    world.put(0, "a")
    row = one(db, "select * from sync.status")
    last = one(db, "select * from sync.change_log order by change_id desc limit 1")
    assert row["log_head"] == last["position"]
    assert str(row["log_epoch"]) == last["position"].split(".")[0]


def test_repo_status_shows_tombstones_and_visibility(db: Session) -> None:
    world = World(db, repos=3)
    world.untrack(1)
    world.take_down(2)
    rows = db.execute("select * from sync.repo_status order by did").fetchall()
    found = {row["did"]: (row["tracked_by"], row["is_visible"]) for row in rows}
    assert found == {did(0): ("did", True), did(1): (None, False), did(2): ("did", False)}


def test_host_status_counts_what_waits_for_a_host(
    db: Session, clock: Callable[[str], None]
) -> None:
    World(db, repos=3)
    clock("2026-01-01 00:00:00+00")
    db.execute(
        "with h as (insert into sync.hosts (url, ready_at, failures) "
        "values ('https://pds.example', '2026-01-01 00:00:01+00', 2) returning host_id) "
        "update sync.repos set host_id = (select host_id from h) where did <> %s",
        [did(0)],
    )
    db.execute("update sync.repos set sync_state = 'fetching' where did = %s", [did(1)])
    query = "select * from sync.host_status where url <> ''"
    row = one(db, query)
    assert (row["repos"], row["fetching"], row["waiting"]) == (2, 1, 1)
    assert (row["is_ready"], row["failures"]) == (False, 2)
    clock("2026-01-01 00:00:01+00")
    assert one(db, query)["is_ready"] is True


def test_source_status_shows_the_slowest_lane(db: Session, clock: Callable[[str], None]) -> None:
    clock("2026-01-01 00:00:00+00")
    row = one(db, "select sync.add_source('wss://relay.example') as id")
    query = "select * from sync.source_status"
    assert (one(db, query)["seq"], one(db, query)["lanes"]) == (None, 0)
    for lane, seq in enumerate((70, 50)):
        db.execute(
            "insert into sync.cursors (source_id, lane, seq, token, updated_at) "
            "values (%s, %s, %s, 1, sync_priv.clock())",
            [row["id"], lane, seq],
        )
    clock("2026-01-01 00:01:30+00")
    row = one(db, query)
    assert (row["seq"], row["lanes"], row["lag_seconds"]) == (50, 2, 90.0)
    assert one(db, "select * from sync.status")["lag_seconds"] == 90.0


def test_consumer_status_shows_lag_in_rows_and_seconds(
    db: Session, clock: Callable[[str], None]
) -> None:
    world = World(db)
    world.put(0, "z")
    reader = make_reader(db, p_start="now")
    assert reader.status()["is_at_rest"]
    clock("2026-01-01 00:00:00+00")
    world.put(0, "a")
    clock("2026-01-01 00:00:20+00")
    world.put(0, "b")
    clock("2026-01-01 00:00:30+00")
    row = reader.status()
    assert (row["lag_rows"], row["lag_seconds"], row["is_at_rest"]) == (2, 30.0, False)
    reader.read(1)
    row = reader.status()
    assert (row["lag_rows"], row["lag_seconds"], row["is_at_rest"]) == (1, 10.0, False)
    reader.read()
    row = reader.status()
    assert (row["lag_rows"], row["lag_seconds"], row["is_at_rest"]) == (0, 0.0, True)


def test_consumer_status_shows_a_walk(db: Session) -> None:
    world = World(db)
    world.load(0, "abc")
    world.load(0, "d", collection=LIKE)
    reader = make_reader(db)
    assert reader.status()["is_walking"]
    reader.read(1)
    assert reader.status()["pending"] == 2
    reader.read_all()
    row = reader.status()
    assert (row["is_walking"], row["pending"], row["is_at_rest"]) == (False, 0, True)


def test_problems_add_up_totals_and_what_came_since(db: Session) -> None:
    db.execute(
        "insert into sync_priv.problem_totals "
        "(reason, host, did, events, detail, first_seen_at, last_seen_at) values "
        "('bad_signature', 'pds.example', %s, 3, 'old', '2026-01-01Z', '2026-01-02Z')",
        [did(0)],
    )
    db.execute(
        "insert into sync_priv.problem_deltas (reason, host, did, detail, events, noted_at) values "
        "('bad_signature', 'pds.example', %(did)s, 'new', 2, '2026-01-03Z'), "
        "('bad_signature', 'pds.example', %(did)s, null, 1, '2026-01-04Z'), "
        "('too_big', '', '', null, 1, '2026-01-04Z')",
        {"did": did(0)},
    )
    rows = db.execute("select * from sync.problems order by reason").fetchall()
    assert [(row["reason"], row["events"], row["detail"]) for row in rows] == [
        ("bad_signature", 6, "new"),
        ("too_big", 1, None),
    ]
    assert (rows[0]["first_seen_at"].day, rows[0]["last_seen_at"].day) == (1, 4)
    assert one(db, "select * from sync.status")["problems"] == 7


@pytest.mark.rule("AC-01")
def test_the_change_log_shows_no_records_of_hidden_repos(db: Session) -> None:
    world = World(db)
    world.put(0, "a")
    world.put(1, "b")
    world.take_down(0)
    rows = db.execute("select * from sync.change_log order by change_id").fetchall()
    assert [(row["kind"], row["did"]) for row in rows] == [
        ("create", did(1)),
        ("account", did(0)),
        ("purge", did(0)),
    ]


def test_the_first_rows_of_a_range_of_the_change_log_cost_no_more_than_they_are(
    db: Session,
) -> None:
    world = World(db)
    for number in range(300):
        world.put(0, str(number))
    plan = db.execute(
        "explain (analyze, costs off, timing off, summary off)"
        " select * from sync.change_log where change_id > 100 order by change_id limit 5"
    ).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert re.search(r"Index Scan using \w+_pkey on changes_\d+ c \(actual rows=5(\.00)?", text)
    assert "Index Cond: (change_id > 100)" in text
    assert "Sort" not in text
