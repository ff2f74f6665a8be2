"""take_down_repos and restore_repos: the operator's own word on a repo."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import Driver, did
from tests.sql.readers import World, make_reader, told
from tests.sql.waiting import background, wait_until_blocked

Session = psycopg.Connection[DictRow]


def call(db: Session, function: str, *numbers: int) -> int:
    row = db.execute(
        f"select sync.{function}(%s) as n".encode(), [[did(n) for n in numbers]]
    ).fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.rule("AC-01")
def test_records_are_gone_at_once_and_come_back(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    shown = world.records()
    assert call(db, "take_down_repos", 0) == 1
    assert world.records() == {}
    assert world.stored(0) == {"a"}
    assert call(db, "restore_repos", 0) == 1
    assert world.records() == shown


def test_a_replayed_takedown_changes_and_logs_nothing(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    reader = make_reader(db)
    reader.read_all()
    for function in ("take_down_repos", "restore_repos"):
        assert call(db, function, 0) == 1
        reader.read_all()
        assert call(db, function, 0) == 0
        assert reader.read_all() == []


def test_a_repo_that_is_not_active_upstream_stays_hidden_when_restored(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    call(db, "take_down_repos", 0)
    db.execute("update sync.repos set is_active = false where did = %s", [did(0)])
    reader = make_reader(db, p_start="now")
    call(db, "restore_repos", 0)
    assert world.records() == {}
    assert told(reader.read_all()) == [("account", None)]


def test_an_untracked_repo_may_be_taken_down_for_the_day_it_comes_back(db: Session) -> None:
    world = World(db)
    world.untrack(0)
    assert call(db, "take_down_repos", 0) == 1


@pytest.mark.parametrize("function", ["take_down_repos", "restore_repos"])
def test_an_unknown_did_is_refused_and_nothing_is_done(db: Session, function: str) -> None:
    World(db, repos=1)
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        call(db, function, 0, 1)
    assert caught.value.sqlstate == "SY001"
    row = db.execute("select count(*) as n from sync.repos where local_status is not null")
    assert row.fetchone() == {"n": 0}


def test_takedowns_in_opposite_orders_wait_instead_of_deadlocking(
    session: Callable[..., Session],
) -> None:
    owner, first, second = session(), session(autocommit=False), session()
    with owner.transaction():
        World(owner)
    call(first, "take_down_repos", 0, 1)
    with background(second, lambda: call(second, "take_down_repos", 1, 0)) as other:
        wait_until_blocked(owner, second)
        first.commit()
    other.result()
    assert call(owner, "restore_repos", 0, 1) == 2


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_nobody_is_shown_by_a_snapshot_that_may_lack_his_records(session, level: str) -> None:
    lane, operator = Driver(session()), session()
    lane.load(1, {"a": "x"}, at=10, data="t10")
    operator.execute("select sync.take_down_repos(%s)", [[did(1)]])
    with pytest.raises(psycopg.Error) as refused, operator.transaction():
        operator.execute(f"set transaction isolation level {level}".encode())
        operator.execute("select sync.restore_repos(%s)", [[did(1)]])
    assert refused.value.sqlstate == "SY107"
    operator.execute("select sync.restore_repos(%s)", [[did(1)]])
    assert lane.rows("select rkey from sync.records") == [{"rkey": "a"}]
