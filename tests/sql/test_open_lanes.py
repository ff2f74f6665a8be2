"""sync.open_lanes(): tokens for all lanes of a source, and another number of lanes."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import Driver
from tests.sql.waiting import PATIENCE_S, background, wait_until_blocked

Session = psycopg.Connection[DictRow]


@pytest.fixture
def source(db: Session) -> int:
    row = db.execute("select sync.add_source('ws://relay.test', 'relay') as id").fetchone()
    assert row is not None
    return int(row["id"])


def open_lanes(db: Session, source: int, lanes: int) -> list[DictRow]:
    return db.execute("select * from sync.open_lanes(%s, %s)", [source, lanes]).fetchall()


def cursors(db: Session, source: int) -> list[tuple[int, int, int | None]]:
    rows = db.execute(
        "select lane_epoch, lane, seq from sync.cursors where source_id = %s order by 1, 2",
        [source],
    ).fetchall()
    return [(row["lane_epoch"], row["lane"], row["seq"]) for row in rows]


def move(db: Session, source: int, lane: DictRow, seq: int) -> bool:
    row = db.execute(
        "select sync_priv.move_cursor(%s, %s, %s, %s, 1) as moved",
        [source, lane["lane"], lane["token"], seq],
    ).fetchone()
    return bool(row and row["moved"])


def test_each_opening_draws_tokens_that_fence_the_last_ones_off(db: Session, source: int) -> None:
    before = open_lanes(db, source, 3)
    assert [(row["lane"], row["seq"]) for row in before] == [(0, None), (1, None), (2, None)]
    assert move(db, source, before[1], 7)
    after = open_lanes(db, source, 3)
    assert {row["lane"]: row["seq"] for row in after} == {0: None, 1: 7, 2: None}
    assert len({row["token"] for row in (*before, *after)}) == 6
    assert not move(db, source, before[1], 8)
    assert move(db, source, after[1], 8)
    assert cursors(db, source) == [(1, 0, None), (1, 1, 8), (1, 2, None)]


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_another_number_begins_an_epoch_at_the_lowest_cursor(
    db: Session, source: int, lanes: int
) -> None:
    before = open_lanes(db, source, 3)
    for lane, seq in zip(before, (30, 10, 20), strict=True):
        assert move(db, source, lane, seq)
    after = open_lanes(db, source, lanes)
    assert cursors(db, source) == [(2, lane, 10) for lane in range(lanes)]
    assert [row["seq"] for row in after] == [10] * lanes
    assert not any(move(db, source, lane, 40) for lane in before)
    status = db.execute("select lanes, seq from sync.source_status").fetchone()
    assert status == {"lanes": lanes, "seq": 10}


def test_a_lane_that_never_started_starts_all_of_them_anew(db: Session, source: int) -> None:
    before = open_lanes(db, source, 2)
    assert move(db, source, before[0], 10)
    assert [row["seq"] for row in open_lanes(db, source, 4)] == [None] * 4


def test_other_sources_keep_their_lanes(db: Session, source: int) -> None:
    row = db.execute("select sync.add_source('ws://other.test', 'pds') as id").fetchone()
    assert row is not None
    open_lanes(db, row["id"], 2)
    kept = cursors(db, row["id"])
    open_lanes(db, source, 2)
    open_lanes(db, source, 3)
    assert cursors(db, row["id"]) == kept


@pytest.mark.parametrize("lanes", [0, -1, 257, None])
def test_a_number_out_of_range_is_refused(db: Session, source: int, lanes: int | None) -> None:
    with pytest.raises(psycopg.Error) as refused:
        open_lanes(db, source, lanes)  # type: ignore[arg-type]
    assert refused.value.sqlstate == "SY002"


def test_it_waits_for_the_batch_that_is_being_applied(session) -> None:
    lane, successor, observer = Driver(session()), session(), session()
    lane.conn.autocommit = False
    lane.rows("select * from sync.apply_events(%s, 0, %s, 99, 0)", lane.source_id, lane.token)
    with background(successor, lambda: open_lanes(successor, lane.source_id, 2)) as opening:
        wait_until_blocked(observer, successor)
        lane.conn.commit()
        assert [row["seq"] for row in opening.result(PATIENCE_S)] == [99, 99]
