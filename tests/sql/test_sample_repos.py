"""sync.sample_repos(): which repos may be drawn."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import Driver, did


def drawn(lane: Driver, count: int) -> set[str]:
    return {row["did"] for row in lane.rows("select did from sync.sample_repos(%s) as did", count)}


def test_synchronized_and_visible_repos_are_drawn(session) -> None:
    lane = Driver(session())
    for number in range(6):
        lane.load(number, {"a": "x"}, at=10, data=f"t{number}")
    lane.track(7)
    lane.value("select sync.take_down_repos(%s)", [did(0)])
    seen: set[str] = set()
    for _ in range(30):
        some = drawn(lane, 2)
        assert 1 <= len(some) <= 2
        seen |= some
    assert seen == {did(number) for number in range(1, 6)}


def test_nothing_is_drawn_from_nothing(db: psycopg.Connection[DictRow]) -> None:
    assert db.execute("select sync.sample_repos(5)").fetchall() == []


@pytest.mark.parametrize("count", [0, -1, 100_001, None])
def test_a_number_out_of_range_is_refused(
    db: psycopg.Connection[DictRow], count: int | None
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select sync.sample_repos(%s)", [count])
    assert refused.value.sqlstate == "SY002"
