"""The log gives up its oldest partitions: when, past whom, and that nobody sees a hole."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from sync.database import connect
from sync.retention import retire_partitions
from sync.roles import INGESTER
from tests.sql.driver import Driver, Event, Op, did
from tests.sql.readers import Reader, make_reader
from tests.sql.waiting import background, impatient, patient_retention, wait_until_blocked

SIZE = 20
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def lane(session):
    """One synchronized repo, partitions of twenty changes, and a clock that stands still."""
    conn = session()
    conn.execute("set role sync_owner")
    conn.execute(
        "create or replace function sync_priv.partition_size() returns bigint"
        f" language sql immutable as $$ select {SIZE}::bigint $$"
    )
    conn.execute("reset role")
    lane = Driver(conn)
    at(lane, timedelta())
    lane.load(1, {"a": "lorem"}, at=10, data="t10")
    return lane


def at(lane: Driver, age: timedelta) -> None:
    """Set the time that the session sees."""
    lane.conn.execute("select set_config('sync.now', %s, false)", [(START + age).isoformat()])


def write(lane: Driver, count: int) -> None:
    """Log `count` updates, a commit each."""
    last = lane.value("select substring(value ->> 'text' from '[0-9]+') from sync.records")
    first = int(last) + 1 if last else 10
    for n in range(first, first + count):
        event = Event(
            did(1), rev=n + 1, since=n, before=f"t{n}", data=f"t{n + 1}",
            ops=[Op("update", "a", f"text {n}")],
        )  # fmt: skip
        assert lane.apply(event) == {"applied": 1}


def reader(lane: Driver, name: str = "app", **arguments: object) -> Reader:
    """Make a consumer that has read everything."""
    made = make_reader(lane.conn, name, **arguments)
    made.read_all()
    return made


def states(lane: Driver) -> list[str]:
    """Return the states of the partitions, oldest first."""
    return [row["state"] for row in lane.rows("select state from sync.log_status order by name")]


def floor(lane: Driver) -> int:
    return int(lane.value("select log_floor from sync_priv.log_state"))


async def drop_retired(clone: str) -> bool:
    """Do what the service does with what the log has given up."""
    conn = await connect(clone, name="test upkeep", role=INGESTER)
    try:
        with patient_retention():
            return await retire_partitions(conn, url=clone)
    finally:
        await conn.close()


# When ------------------------------------------------------------------------------------------


def test_a_closed_partition_goes_once_it_is_old_enough(lane):
    write(lane, 2 * SIZE)
    lane.maintain()
    kept = lane.value("select count(*) from sync.changes")
    assert "retired" not in states(lane)
    assert lane.value("select held_back_by from sync.log_status where state = 'closed'") == "age"
    at(lane, DAY + timedelta(minutes=1))
    lane.maintain()
    assert states(lane).count("retired") >= 2
    assert floor(lane) > 0
    assert lane.value("select count(*) from sync.changes") == kept


def test_it_waits_for_every_consumer_to_pass(lane):
    slow, quick = reader(lane, "slow"), reader(lane, "quick")
    write(lane, 2 * SIZE)
    quick.read_all()
    at(lane, 3 * DAY)
    lane.maintain()
    held = lane.rows("select held_back_by from sync.log_status where state = 'closed'")
    assert {row["held_back_by"] for row in held} == {"consumer slow, shard 0"}
    slow.read_all()
    lane.maintain()
    assert "closed" not in states(lane)
    assert not slow.status()["is_outrun"]
    write(lane, 1)
    assert len(slow.read()) == len(quick.read()) == 1


@pytest.mark.parametrize("limits", ["'1 day', '2 days'", "'1 day', null, 1048576"])
def test_beyond_a_limit_it_goes_past_whoever_is_behind(lane, limits):
    behind = reader(lane)
    write(lane, 2 * SIZE)
    if "null" in limits:
        lane.conn.execute("select sync.set_retention('1 hour')")
        lane.conn.execute("set role sync_owner")
        lane.conn.execute("update sync_priv.log_state set keep_age = '1 day', max_bytes = 1")
        lane.conn.execute("reset role")
    else:
        lane.conn.execute(f"select sync.set_retention({limits})".encode())
    at(lane, 2 * DAY + timedelta(minutes=1))
    lane.maintain()
    assert "closed" not in states(lane)
    assert behind.status()["is_outrun"]
    with pytest.raises(psycopg.Error) as refusal:
        behind.read()
    assert refusal.value.sqlstate == "SY301"
    lane.conn.execute("select sync.replay('app')")
    behind.read_all()
    records = lane.rows("select did, collection, rkey, cid from sync.records")
    assert behind.state == {(r["did"], r["collection"], r["rkey"]): r["cid"] for r in records}


@pytest.mark.parametrize(
    "arguments",
    ["null", "'-1 day'", "'2 days', '1 day'", "'1 day', null, 0", "'0', '0'"],
)
def test_nonsense_is_refused(lane, arguments):
    with pytest.raises(psycopg.Error) as refusal:
        lane.conn.execute(f"select sync.set_retention({arguments})".encode())
    assert refusal.value.sqlstate == "SY002"


# A quiet log -----------------------------------------------------------------------------------


def test_a_quiet_log_leaves_its_partition_by_and_by(lane):
    follower = reader(lane)
    write(lane, 3)
    at(lane, timedelta(hours=7))
    lane.maintain()
    assert states(lane)[-1] == "current"
    assert lane.value("select last_id from sync.log_status where state = 'current'") is None
    assert follower.status()["lag_rows"] == 3
    write(lane, 2)
    assert follower.status()["lag_rows"] == 5
    assert len(follower.read(2)) == 2
    assert follower.status()["lag_rows"] == 3
    assert len(follower.read_all()) == 3
    assert follower.status()["lag_rows"] == 0
    at(lane, 2 * DAY)
    lane.maintain()
    assert follower.status()["is_at_rest"]
    assert "closed" not in states(lane)


def test_an_empty_log_is_left_alone(lane):
    lane.conn.execute("truncate sync.changes")
    before = lane.value("select last_value from sync_priv.change_ids")
    at(lane, 9 * DAY)
    lane.maintain()
    assert lane.value("select last_value from sync_priv.change_ids") == before


def test_an_epoch_notes_the_ids_it_skips(lane):
    follower = reader(lane)
    write(lane, 3)
    lane.conn.execute("set role sync_owner")
    lane.conn.execute("update sync_priv.log_state set timeline = '0000FFFF'")
    lane.conn.execute("reset role")
    write(lane, 2)
    assert follower.status()["lag_rows"] == 5


# Readers ---------------------------------------------------------------------------------------


def test_a_reader_with_an_old_snapshot_fails_instead_of_seeing_a_hole(lane, session):
    reader(lane)
    write(lane, 2 * SIZE)
    old = session(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from sync.records")
    lane.conn.execute("select sync.set_retention('1 hour', '1 day')")
    at(lane, 2 * DAY)
    lane.maintain()
    with pytest.raises(psycopg.errors.SerializationFailure):
        old.execute("select * from sync.read_changes('app')")
    old.rollback()
    with pytest.raises(psycopg.Error) as refusal:
        old.execute("select * from sync.read_changes('app')")
    assert refusal.value.sqlstate == "SY301"


def test_a_reader_in_its_transaction_is_neither_overtaken_nor_waited_for(lane, session):
    reader(lane)
    write(lane, 2 * SIZE)
    busy = session(autocommit=False)
    busy.execute("select * from sync.read_changes('app', 1)")
    lane.conn.execute("select sync.set_retention('1 hour', '1 day')")
    at(lane, 2 * DAY)
    impatient(lane.conn)
    lane.maintain()
    assert floor(lane) == 0
    assert "closed" in states(lane)
    busy.commit()
    lane.maintain()
    assert floor(lane) > 0


# Detaching and dropping ------------------------------------------------------------------------


async def test_what_was_given_up_is_detached_and_dropped(lane, clone):
    write(lane, 2 * SIZE)
    at(lane, 2 * DAY)
    lane.maintain()
    assert await drop_retired(clone)
    assert set(states(lane)) == {"current", "ahead"} or states(lane) == ["current"]
    assert lane.value("select min(change_id) from sync.changes") in (None, floor(lane) + 1)
    write(lane, 1)
    assert await drop_retired(clone)


async def test_a_dump_keeps_it_and_stops_nobody(lane, clone, session):
    write(lane, 2 * SIZE)
    at(lane, 2 * DAY)
    lane.maintain()
    dump = session(autocommit=False)
    dump.execute("set transaction isolation level repeatable read")
    dump.execute("lock table sync.changes in access share mode")
    dump.execute("select pg_sleep(1.1)")  # an old transaction, as the service sees it
    assert not await drop_retired(clone)
    impatient(lane.conn)
    follower = reader(lane)
    write(lane, 2 * SIZE)  # through partitions that have to be made
    lane.maintain()
    assert len(follower.read_all()) == 2 * SIZE
    dump.rollback()
    assert await drop_retired(clone)
    assert "retired" not in states(lane)


@pytest.mark.parametrize("stage", ["pending", "detached"])
async def test_what_was_broken_off_is_finished(lane, clone, session, stage):
    write(lane, 2 * SIZE)
    at(lane, 2 * DAY)
    lane.maintain()
    name = lane.value("select name from sync.log_status where state = 'retired' limit 1")
    owner = session(role="sync_owner")
    detach = f"alter table sync.changes detach partition sync_priv.{name} concurrently"
    if stage == "pending":
        user = session(autocommit=False)
        user.execute("lock table sync.changes in access share mode")
        with background(owner, lambda: owner.execute(detach.encode())) as detaching:
            wait_until_blocked(user, owner)
            owner.cancel_safe()
        assert isinstance(detaching.exception(), psycopg.errors.QueryCanceled)
        user.rollback()
    else:
        owner.execute(detach.encode())
    assert stage in states(lane)
    write(lane, SIZE)
    assert await drop_retired(clone)
    assert {"retired", "pending", "detached"}.isdisjoint(states(lane))


async def test_nothing_of_it_ends_in_a_deadlock(lane, clone):
    for turn in range(1, 4):
        write(lane, SIZE)
        at(lane, turn * 2 * DAY)
        lane.maintain()
        assert await drop_retired(clone)
    assert (
        lane.value("select deadlocks from pg_stat_database where datname = current_database()") == 0
    )


# Positions kept outside ------------------------------------------------------------------------


def position(lane: Driver, text: object) -> object:
    return lane.value("select sync.position_id(%s)", text)


def test_a_position_of_this_epoch_is_an_id(lane):
    last = lane.row("select position, change_id from sync.change_log order by change_id desc")
    assert position(lane, last["position"]) == last["change_id"]


@pytest.mark.parametrize("text", ["", "7", "1.", "x.1", "1.2.3", "1.9999999999999999999", None])
def test_what_is_no_position_is_refused(lane, text):
    with pytest.raises(psycopg.Error) as refusal:
        position(lane, text)
    assert refusal.value.sqlstate == "SY002"


def test_a_position_of_another_epoch_is_refused_with_what_to_do(lane):
    epoch = lane.value("select log_epoch from sync.status")
    with pytest.raises(psycopg.Error, match="another log epoch") as refusal:
        position(lane, f"{epoch - 1}.5")
    assert refusal.value.sqlstate == "SY303"
    assert "sync.records" in str(refusal.value.diag.message_hint)


def test_a_position_behind_the_floor_is_refused(lane):
    first = lane.value("select position from sync.change_log limit 1")
    write(lane, 2 * SIZE)
    at(lane, 2 * DAY)
    lane.maintain()
    with pytest.raises(psycopg.Error) as refusal:
        position(lane, first)
    assert refusal.value.sqlstate == "SY301"
