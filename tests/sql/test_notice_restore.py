"""What an upgrade does with a database that was restored, recovered or copied."""

import psycopg
import pytest

from sync.schema import upgrade
from tests.sql.driver import Driver, Event, Op, did

EPOCH = "select log_epoch from sync_priv.log_state"


@pytest.fixture
def service(session):
    """Play a service whose log has begun, so that the clone is no longer news."""
    driver = Driver(session())
    driver.load(1, {"a": "x"}, at=10, data="t10")
    return driver


def restore(service: Driver) -> None:
    """Let it look as if a dump had been restored here."""
    service.conn.execute("update sync_priv.log_state set table_oid = 1")
    service.conn.execute("select sync_priv.notice_restore(false)")


def test_nothing_happens_to_a_database_that_was_not_restored(service):
    before = service.row("select * from sync_priv.log_state, sync.cursors, sync_priv.fetch_state")
    service.conn.execute("select sync_priv.notice_restore(false)")
    after = service.row("select * from sync_priv.log_state, sync.cursors, sync_priv.fetch_state")
    assert after == before


def test_a_lane_that_ran_before_the_restore_is_fenced(service):
    restore(service)
    with pytest.raises(psycopg.Error) as refusal:
        service.apply()
    assert refusal.value.sqlstate == "SY101"


def test_no_token_the_original_may_have_drawn_meanwhile_is_drawn_again(service):
    before = service.value("select last_value from sync_priv.tokens")
    restore(service)
    claimed = service.row("select * from sync.claim_lane(%s)", service.source_id)
    assert claimed["token"] > before + 1000
    assert claimed["seq"] == service.cursor


def test_held_events_stay_and_are_walked_by_the_next_fetch(service):
    service.conn.execute("select sync.resync_repos(%s)", [[did(1)]])
    claim = service.claim_directly(1)
    service.apply(
        Event(did(1), rev=11, since=10, before="t10", data="t11", ops=[Op("create", "b", "y")])
    )
    assert service.value("select count(*) from sync_priv.held_events") == 1
    restore(service)
    assert service.state(1) == "desynchronized"
    assert service.row("select repo_id, is_due from sync_priv.held_events") == {
        "repo_id": claim.repo_id,
        "is_due": True,
    }


def test_two_restores_of_one_dump_have_epochs_of_their_own(service, clock_of):
    clock_of(service, "2027-01-01T00:00:00Z")
    with service.conn.transaction(force_rollback=True):
        restore(service)
        first = service.value(EPOCH)
    clock_of(service, "2027-01-01T00:00:01Z")
    restore(service)
    assert service.value(EPOCH) == first + 1


def test_an_epoch_grows_though_the_clock_went_back(service, clock_of):
    clock_of(service, "2027-01-01T00:00:00Z")
    restore(service)
    first = service.value(EPOCH)
    clock_of(service, "2020-01-01T00:00:00Z")
    restore(service)
    assert service.value(EPOCH) == first + 1


@pytest.fixture
def clock_of():
    """Return a function that sets the time a driver sees."""

    def set_clock(driver: Driver, now: str) -> None:
        driver.conn.execute("select set_config('sync.now', %s, false)", [now])

    return set_clock


def test_a_purge_that_another_cluster_settled_is_settled_here(service):
    """The other cluster may be billions of transactions ahead: it would never begin."""
    service.maintain()
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    service.conn.execute("update sync_priv.purges set settled_xid = '99999999999'")
    service.maintain()
    assert service.value("select count(*) from sync.stored_records") == 0
    assert service.value("select count(*) from sync_priv.purges") == 0


def test_a_dump_without_the_log_leaves_its_readers_outrun_where_they_were_not_there_yet(service):
    service.conn.execute("select sync.create_consumer('behind'), sync.create_consumer('level')")
    service.apply(
        Event(did(1), rev=11, since=10, before="t10", data="t11", ops=[Op("create", "b", "y")])
    )
    while service.rows("select * from sync.read_changes('level')"):
        pass
    service.conn.execute("delete from sync.changes")
    restore(service)
    outrun = service.rows("select name, is_outrun from sync.consumer_status order by name")
    assert [(row["name"], row["is_outrun"]) for row in outrun] == [
        ("behind", True),
        ("level", False),
    ]


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("sync_priv.log_state", "delete from sync_priv.log_state"),
        ("sync_priv.filter_state", "delete from sync_priv.filter_state"),
        ("sync_priv.fetch_state", "delete from sync_priv.fetch_state"),
        ("sync_priv.change_ids", "select setval('sync_priv.change_ids', 0)"),
        ("sync.heads", "delete from sync.heads"),
        ("sync.collections", "delete from sync.collections"),
        ("sync_priv.consumer_shards", "delete from sync_priv.consumer_shards"),
    ],
)
def test_part_of_a_dump_is_refused(service, part, damage):
    service.conn.execute("select sync.create_consumer('app')")
    service.conn.execute("select sync_priv.refuse_torn()")
    service.conn.execute(damage)
    with pytest.raises(psycopg.Error, match=part) as refusal:
        service.conn.execute("select sync_priv.refuse_torn()")
    assert refusal.value.sqlstate == "SY106"


def test_a_log_from_before_the_table_was_remembered_begins_an_epoch(service, clone):
    """Migration 0006 cannot tell whether such a database was restored over itself."""
    before = service.value(EPOCH)
    service.conn.execute("update sync_priv.log_state set table_oid = 0")
    upgrade(clone)
    assert service.value(EPOCH) > before
