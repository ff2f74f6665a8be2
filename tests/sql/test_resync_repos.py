"""sync.resync_repos(): fetch again, forget nothing."""

import psycopg
import pytest

from tests.sql.driver import Driver, Event, did


def resync(service: Driver, *numbers: int) -> int:
    return service.value("select sync.resync_repos(%s)", [did(n) for n in numbers])


@pytest.fixture
def service(session):
    service = Driver(session())
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.track(2)
    service.locate(1, 2)
    return service


def test_a_synchronized_repo_is_fetched_again_and_keeps_its_records(service):
    start = service.position()
    assert resync(service, 1) == 1
    assert service.state(1) == "desynchronized"
    assert service.texts(1) == {"a": "x"}
    assert service.log(start) == []
    assert service.claim(1).has_records


def test_a_repo_that_waits_already_is_moved_to_the_front(service):
    service.later("0 s")
    claim = service.claim(2)
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'no')",
        claim.repo_id, claim.generation, claim.fetch_token,
    )  # fmt: skip
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    assert resync(service, 2) == 1
    row = service.row("select * from sync.repos where did = %s", did(2))
    assert (row["sync_state"], row["attempts"], row["error"]) == ("desynchronized", 0, None)
    assert service.claim(2)


def test_a_pending_repo_stays_pending_and_a_running_fetch_is_left_alone(service):
    assert resync(service, 2) == 1
    assert service.state(2) == "pending"
    claim = service.claim(2)
    assert resync(service, 2) == 0
    outcome = service.reconcile(claim, {"a": "y"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"


def test_the_hosts_of_the_repos_may_be_asked_at_once(service):
    service.conn.execute("update sync.hosts set ready_at = 'infinity' where host_id > 0")
    resync(service, 1)
    assert service.claim(1)


def test_it_wakes_the_service(service, session):
    listener = session()
    listener.execute("listen sync_work")
    resync(service, 1)
    assert len(list(listener.notifies(timeout=60, stop_after=1))) == 1


def test_a_did_that_is_not_tracked_is_refused_and_nothing_changes(service):
    with pytest.raises(psycopg.Error) as refusal:
        resync(service, 1, 9)
    assert refusal.value.sqlstate == "SY001"
    assert service.state(1) == "synchronized"


def test_an_untracked_repo_cannot_be_fetched_again(service):
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    with pytest.raises(psycopg.Error) as refusal:
        resync(service, 1)
    assert refusal.value.sqlstate == "SY001"


@pytest.mark.rule("AC-02")
def test_an_account_that_is_not_active_waits_until_it_is(service):
    service.apply(Event(did(1), kind="account", is_active=False, status="suspended"))
    resync(service, 1)
    assert did(1) not in [r["did"] for r in service.rows("select * from sync.claim_fetches(9, 9)")]


def test_an_app_that_idles_after_it_keeps_no_host_from_the_fetchers(service, session):
    service.conn.execute("update sync.hosts set ready_at = now() + '1 hour', failures = 3")
    service.conn.execute("update sync.hosts set ready_at = '-infinity' where host_id = 0")
    claim = service.claim_directly(2)
    app = session(autocommit=False)
    app.execute("select sync.resync_repos(%s)", [[did(1)]])
    service.conn.execute("set lock_timeout = '2s'")
    outcome = service.reconcile(claim, {"a": "y"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    again = service.claim_directly(2)
    assert service.value(
        "select sync.fail_fetch(%s, %s, %s, 'busy', null, now() + interval '1 minute')",
        again.repo_id, again.generation, again.fetch_token,
    )  # fmt: skip
