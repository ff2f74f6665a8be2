"""sync.maintain(): bounded steps of upkeep, one at a time."""

import pytest

from tests.sql.driver import LIKE, Driver, did
from tests.sql.waiting import impatient


@pytest.fixture
def service(session):
    return Driver(session())


def test_with_nothing_to_do_it_says_so_and_writes_nothing(service):
    service.maintain()
    before = service.value("select pg_current_wal_lsn()")
    assert service.value("select sync.maintain()") is False
    assert service.value("select pg_current_wal_lsn() - %s::pg_lsn < 1000", before)


def test_two_at_once_do_not_wait_for_each_other(service, session):
    service.maintain()
    other = session(autocommit=False)
    other.execute("select sync.maintain()")
    assert impatient(service.conn)
    assert service.value("select sync.maintain()") is False


def test_purges_end_in_the_order_they_began_and_each_wakes_the_service(service, session):
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.load(2, {(LIKE, "l"): "y"}, at=10, data="t10")
    service.maintain()
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    service.conn.execute("select sync.untrack_collections(array['*'])")
    listener = session()
    listener.execute("listen sync_work")
    assert service.value("select sync.maintain()")
    assert service.rows("select repo_id from sync_priv.purges limit 1") == [{"repo_id": None}]
    assert len(list(listener.notifies(timeout=60, stop_after=1))) == 1
    service.maintain()
    assert service.value("select count(*) from sync_priv.purges") == 0
    assert list(listener.notifies(timeout=60, stop_after=1))


def test_a_purge_that_has_to_wait_lets_another_one_go_first(service, session):
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.load(2, {"a": "y"}, at=10, data="t10")
    service.conn.execute("select sync.untrack_repos(%s)", [[did(2)]])
    service.maintain()
    assert service.value("select count(*) from sync.stored_records") == 1
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    service.maintain()
    assert service.value("select count(*) from sync.stored_records") == 1
    older.commit()
    service.maintain()
    assert service.value("select count(*) from sync.stored_records") == 0


def test_a_purge_may_be_interrupted_at_any_step(service):
    service.load(1, {"a": "x", "b": "y"}, at=10, data="t10")
    service.maintain()
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    with service.conn.transaction(force_rollback=True):
        assert service.value("select sync.maintain()")
    assert service.value("select count(*) from sync.stored_records") == 2
    assert service.texts(1) == {}
    service.maintain()
    assert service.value("select count(*) from sync.stored_records") == 0


def test_purges_of_small_repos_go_many_at_a_time(session):
    """One a call, each with a look at all that are left, is quadratic in how many there are."""
    service = Driver(session())
    for number in range(1, 7):
        service.load(number, {"a": "x"}, at=10, data="t10")
    service.value("select sync.untrack_repos(%s)", [did(n) for n in range(1, 6)])
    assert service.value("select sync.maintain()") is True
    left = "select count(*) from sync_priv.purges"
    calls = 0
    while service.value(left):
        service.value("select sync.maintain()")
        calls += 1
    assert calls <= 2
    assert service.rows("select did from sync.stored_records join sync.repos using (repo_id)") == [
        {"did": did(6)}
    ]
