"""sync.release_fetch() and sync.recover_fetches(): claims that end without blame."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import Claim, Driver, Event, Op, did, rev
from tests.sql.waiting import wait_until_gone

A = did(1)


@pytest.fixture
def service(session):
    service = Driver(session())
    service.track(1, 2)
    return service


def release(service: Driver, claim: Claim) -> bool:
    return service.value(
        "select sync.release_fetch(%s, %s, %s)",
        claim.repo_id, claim.generation, claim.fetch_token,
    )  # fmt: skip


def test_a_released_repo_waits_for_another_fetch_at_once(service):
    claim = service.claim(1)
    assert release(service, claim)
    row = service.row("select * from sync.repos where did = %s", A)
    assert (row["sync_state"], row["attempts"], row["error"]) == ("desynchronized", 0, None)
    assert service.claim(1).fetch_token > claim.fetch_token


def test_a_claim_is_released_once_and_only_by_its_holder(service):
    old = service.claim(1)
    assert release(service, old)
    assert not release(service, old)
    new = service.claim(1)
    assert not release(service, old)
    assert service.state(1) == "fetching"
    assert service.reconcile(new, {"a": "x"}, at=10, data="t10")["outcome"] == "synchronized"
    assert not release(service, new)


@pytest.mark.rule("BF-03", "BF-11")
def test_what_was_held_is_dropped_and_its_rev_remembered(service):
    claim = service.claim(1)
    service.apply(
        Event(A, rev=12, since=11, before="t11", data="t12", ops=[Op("create", "c", "live")])
    )
    release(service, claim)
    assert service.value("select count(*) from sync_priv.held_events") == 0
    assert service.value(
        "select seen_rev from sync.heads join sync.repos using (repo_id) where did = %s", A
    ) == rev(12)


@pytest.mark.rule("BF-14")
def test_recovery_puts_every_interrupted_fetch_back_in_line(service):
    claim = service.claim(1)
    assert [service.state(n) for n in (1, 2)] == ["fetching", "fetching"]
    assert service.value("select sync.recover_fetches()") == 2
    assert [service.state(n) for n in (1, 2)] == ["desynchronized", "desynchronized"]
    assert service.value("select sync.recover_fetches()") == 0
    assert service.reconcile(claim, {"a": "x"}, at=10, data="t10")["outcome"] == "superseded"
    assert len(service.rows("select * from sync.claim_fetches(10, 10)")) == 2


@pytest.mark.rule("BF-14")
def test_recovery_leaves_every_other_repo_alone(service):
    service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    service.value("select sync.recover_fetches()")
    assert service.state(1) == "synchronized"


def test_a_service_starts_beside_an_app_that_idles_on_a_repo(session):
    driver = Driver(session())
    driver.track(1, 2)
    for number in (1, 2):
        driver.claim_directly(number)
    app = session(autocommit=False)
    app.execute("select from sync.repos where did = %s for update", [did(1)])
    assert driver.value("select sync.recover_fetches()") == 1
    assert (driver.state(1), driver.state(2)) == ("fetching", "desynchronized")
    app.rollback()
    driver.maintain()
    assert driver.state(1) == "desynchronized"


@pytest.mark.rule("BF-13", "BF-14")
def test_what_was_given_up_while_its_repo_was_locked_brings_nothing(session):
    driver = Driver(session())
    driver.track(1)
    claim = driver.claim(1)
    app = session(autocommit=False)
    app.execute("select from sync.repos for update")
    assert driver.value("select sync.recover_fetches()") == 0
    app.rollback()
    assert driver.state(1) == "fetching"
    assert driver.reconcile(claim, {"a": "x"}, at=10, data="t10")["outcome"] == "superseded"


def test_a_claim_of_the_new_service_is_no_lost_one(session):
    driver = Driver(session())
    driver.conn.execute("select sync.recover_fetches()")
    driver.track(1)
    driver.claim(1)
    driver.maintain()
    assert driver.state(1) == "fetching"


@pytest.mark.parametrize("function", ["fail_fetch(%s, %s, %s, 'x')", "release_fetch(%s, %s, %s)"])
def test_a_fetch_of_a_locked_repo_ends_later_not_never(session, function):
    driver = Driver(session())
    driver.track(1)
    claim = driver.claim(1)
    ids = (claim.repo_id, claim.generation, claim.fetch_token)
    app = session(autocommit=False)
    app.execute("select from sync.repos for update")
    assert driver.value(f"select sync.{function}", *ids) is None
    app.rollback()
    assert driver.value(f"select sync.{function}", *ids) is True


@pytest.mark.rule("BF-14")
def test_the_claims_of_a_session_end_with_it(session):
    keeper, first, second = Driver(session()), session(), session()
    keeper.track(1, 2)
    first.execute("select * from sync.claim_fetches(1, 10)")
    second.execute("select * from sync.claim_fetches(1, 10)")
    keeper.maintain()
    assert [keeper.state(n) for n in (1, 2)] == ["fetching", "fetching"]
    end(keeper, second)
    keeper.maintain()
    assert [keeper.state(n) for n in (1, 2)] == ["fetching", "desynchronized"]


@pytest.mark.rule("BF-14")
def test_a_claim_that_names_nobody_is_given_up(session):
    """A version without fetchers' numbers was killed, and then upgraded."""
    keeper = Driver(session())
    keeper.track(1)
    keeper.claim(1)
    keeper.conn.execute("update sync.repos set fetcher_id = null")
    keeper.maintain()
    assert keeper.state(1) == "desynchronized"


def test_an_import_that_died_is_given_up(session):
    keeper, importer = Driver(session()), session()
    importer.execute("select * from sync.claim_import(%s)", [did(1)])
    keeper.maintain()
    assert keeper.state(1) == "fetching"
    end(keeper, importer)
    keeper.maintain()
    assert keeper.state(1) == "desynchronized"


def end(keeper: Driver, other: psycopg.Connection[DictRow]) -> None:
    """End somebody's session, and wait until it has ended."""
    pid = other.info.backend_pid
    assert keeper.value("select pg_terminate_backend(%s)", pid)
    wait_until_gone(keeper.conn, pid)
