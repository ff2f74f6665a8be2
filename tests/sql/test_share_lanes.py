"""sync.share_lanes(): fair shares of the lanes of a source, and another number of lanes."""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import Driver
from tests.sql.waiting import PATIENCE_S, background, wait_until_blocked, wait_until_gone

Session = psycopg.Connection[DictRow]


@dataclass
class Member:
    """A session that takes part in reading a source."""

    conn: Session
    source: int

    def share(self, lanes: int | None = 4) -> list[int]:
        """Take part; returns the lanes held, those to be given up as -1 - lane."""
        rows = self.conn.execute(
            "select * from sync.share_lanes(%s, %s)", [self.source, lanes]
        ).fetchall()
        self.count = rows[0]["lanes"]
        return [
            -1 - row["lane"] if row["is_surplus"] else row["lane"]
            for row in rows
            if row["lane"] is not None
        ]

    def settle(self, lanes: int = 4) -> list[int]:
        """Do what a service does: take, and leave what is surplus."""
        surplus = [-1 - lane for lane in self.share(lanes) if lane < 0]
        for lane in surplus:
            row = self.conn.execute(
                "select sync.leave_lane(%s, %s) as left", [self.source, lane]
            ).fetchone()
            assert row == {"left": True}
        return self.share(lanes)

    def claim(self, lane: int) -> DictRow:
        """Draw a token."""
        row = self.conn.execute(
            "select * from sync.claim_lane(%s, %s)", [self.source, lane]
        ).fetchone()
        assert row is not None
        return {**row, "lane": lane}

    def move(self, lane: DictRow, seq: int) -> bool:
        """Move a cursor with a token."""
        row = self.conn.execute(
            "select sync_priv.move_cursor(%s, %s, %s, %s, 1) as moved",
            [self.source, lane["lane"], lane["token"], seq],
        ).fetchone()
        return bool(row and row["moved"])

    def end(self, observer: Session) -> None:
        """Disconnect; returns when the server has let go of its lanes."""
        pid = self.conn.info.backend_pid
        self.conn.close()
        wait_until_gone(observer, pid)

    def cursors(self) -> list[tuple[int, int, int | None]]:
        """Return epoch, lane and seq of every cursor."""
        rows = self.conn.execute(
            "select lane_epoch, lane, seq from sync.cursors where source_id = %s order by 1, 2",
            [self.source],
        ).fetchall()
        return [(row["lane_epoch"], row["lane"], row["seq"]) for row in rows]


@pytest.fixture
def join(session: Callable[[], Session]) -> Callable[[], Member]:
    """Give more and more sessions that take part in one source."""
    owner = session()
    row = owner.execute("select sync.add_source('ws://relay.test', 'relay') as id").fetchone()
    assert row is not None
    return lambda: Member(session(), row["id"])


@pytest.fixture
def alone(join: Callable[[], Member]) -> Member:
    return join()


def shares(*members: Member, lanes: int = 4) -> list[list[int]]:
    """Let everybody look until nothing changes."""
    for _ in range(len(members) + 1):
        held = [member.settle(lanes) for member in members]
    return held


def test_who_is_alone_holds_every_lane(alone: Member) -> None:
    assert alone.share(3) == [0, 1, 2]
    assert alone.count == 3
    assert alone.cursors() == [(1, 0, None), (1, 1, None), (1, 2, None)]
    assert alone.share(3) == [0, 1, 2], "asking again changes nothing"


def test_a_new_token_fences_the_last_one_off(alone: Member) -> None:
    alone.share(2)
    before = alone.claim(1)
    assert alone.move(before, 7)
    after = alone.claim(1)
    assert (after["seq"], alone.move(before, 8), alone.move(after, 8)) == (7, False, True)
    assert alone.cursors() == [(1, 0, None), (1, 1, 8)]


def test_who_joins_is_given_a_fair_share(join: Callable[[], Member]) -> None:
    first, second = join(), join()
    assert first.share() == [0, 1, 2, 3]
    assert second.share() == []
    assert second.count == 4
    assert first.share() == [0, 1, -3, -4], "the surplus is to be given up"
    assert second.share() == [], "until it is, nobody else has it"
    first.settle()
    assert second.share() == [2, 3]
    assert first.share() == [0, 1]


@pytest.mark.parametrize(
    ("members", "expected"), [(3, [1, 1, 2]), (4, [1, 1, 1, 1]), (5, [0, 1, 1, 1, 1])]
)
def test_any_number_of_services_shares_all_lanes(
    join: Callable[[], Member], members: int, expected: list[int]
) -> None:
    held = shares(*(join() for _ in range(members)))
    assert sorted(len(lanes) for lanes in held) == expected
    assert sorted(lane for lanes in held for lane in lanes) == [0, 1, 2, 3]


def test_the_lanes_of_a_session_that_ends_fall_to_the_others(join: Callable[[], Member]) -> None:
    first, second, third = join(), join(), join()
    shares(first, second, third)
    second.end(first.conn)
    held = shares(first, third)
    assert [len(lanes) for lanes in held] == [2, 2]
    first.end(third.conn)
    assert third.settle() == [0, 1, 2, 3]


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_another_number_begins_an_epoch_at_the_lowest_cursor(alone: Member, lanes: int) -> None:
    alone.share(3)
    before = [alone.claim(lane) for lane in range(3)]
    for lane, seq in zip(before, (30, 10, 20), strict=True):
        assert alone.move(lane, seq)
    alone.share(lanes)
    assert alone.count == lanes
    assert alone.cursors() == [(2, lane, 10) for lane in range(lanes)]
    assert not any(alone.move(lane, 40) for lane in before)
    assert [alone.claim(lane)["seq"] for lane in range(lanes)] == [10] * lanes
    status = alone.conn.execute("select lanes, seq from sync.source_status").fetchone()
    assert status == {"lanes": lanes, "seq": 10}


def test_lanes_that_are_no_more_are_surplus(alone: Member) -> None:
    alone.share(3)
    assert alone.share(1) == [0, -2, -3]
    assert alone.settle(1) == [0]


def test_the_number_stays_as_long_as_others_read(join: Callable[[], Member]) -> None:
    first, second = join(), join()
    assert first.share(3) == [0, 1, 2]
    second.share(8)
    assert second.count == 3
    shares(first, second, lanes=8)
    assert len(first.cursors()) == 3
    first.end(second.conn)
    assert second.settle(8) == list(range(8)), "who is left decides"


def test_of_two_who_begin_at_once_one_decides_the_number(join: Callable[[], Member]) -> None:
    first, second = join(), join()
    first.conn.autocommit = False
    assert first.share(3) == [0, 1, 2]
    with background(second.conn, lambda: second.share(8)) as other:
        wait_until_blocked(join().conn, second.conn)
        first.conn.commit()
        assert other.result(PATIENCE_S) == []
    assert second.count == 3


def test_a_lane_that_never_started_starts_all_of_them_anew(alone: Member) -> None:
    alone.share(2)
    assert alone.move(alone.claim(0), 10)
    alone.share(4)
    assert [seq for _, _, seq in alone.cursors()] == [None] * 4


def test_other_sources_keep_their_lanes(alone: Member) -> None:
    row = alone.conn.execute("select sync.add_source('ws://other.test', 'pds') as id").fetchone()
    assert row is not None
    other = Member(alone.conn, row["id"])
    assert other.share(2) == [0, 1]
    kept = other.cursors()
    assert alone.share(2) == [0, 1]
    alone.settle(3)
    assert other.cursors() == kept
    assert other.share(2) == [0, 1]


def test_a_source_that_is_removed_has_no_lanes(alone: Member) -> None:
    alone.share(2)
    alone.conn.execute("select sync.remove_source('ws://relay.test')")
    assert alone.settle(2) == []
    assert alone.count == 0


@pytest.mark.parametrize("lanes", [0, -1, 257, None])
def test_a_number_out_of_range_is_refused(alone: Member, lanes: int | None) -> None:
    with pytest.raises(psycopg.Error) as refused:
        alone.share(lanes)
    assert refused.value.sqlstate == "SY002"


def test_another_number_waits_for_the_batch_that_is_being_applied(
    session: Callable[[], Session],
) -> None:
    lane, successor, observer = Driver(session()), session(), session()
    lane.conn.autocommit = False
    lane.rows("select * from sync.apply_events(%s, 0, %s, 99, 0)", lane.source_id, lane.token)
    member = Member(successor, lane.source_id)
    with background(successor, lambda: member.share(2)) as opening:
        wait_until_blocked(observer, successor)
        lane.conn.commit()
        assert opening.result(PATIENCE_S) == [0, 1]
    assert [member.claim(n)["seq"] for n in (0, 1)] == [99, 99]
