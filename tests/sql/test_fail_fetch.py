"""sync.fail_fetch(): a fetch ended without an export."""

import pytest

from tests.sql.driver import Claim, Driver, Event, Op, did, rev

A = did(1)


@pytest.fixture
def service(session):
    service = Driver(session())
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.locate(1)
    service.conn.execute("select sync.resync_repos(%s)", [[A]])
    service.later("0 s")
    return service


def fail(service: Driver, claim: Claim, error: str = "no answer", **more: object) -> bool:
    named = {"p_account_status": None, "p_host_ready_at": None} | more
    return service.value(
        "select sync.fail_fetch(%s, %s, %s, %s, %s, %s::timestamptz)",
        claim.repo_id, claim.generation, claim.fetch_token, error, *named.values(),
    )  # fmt: skip


def repo(service: Driver):
    return service.row("select *, next_fetch_at - sync_priv.clock() as wait from sync.repos")


@pytest.mark.rule("BF-16", "FA-11")
def test_the_repo_remembers_why_and_waits_longer_each_time(service):
    waits = []
    for attempt in (1, 2, 3):
        assert fail(service, service.claim_directly(1))
        row = repo(service)
        assert (row["sync_state"], row["error"], row["attempts"]) == (
            "failed", "no answer", attempt
        )  # fmt: skip
        waits.append(row["wait"].total_seconds())
    for wait, full in zip(waits, (5, 10, 20), strict=True):
        assert full * 0.75 <= wait <= full
    assert service.texts(1) == {"a": "x"}


def test_the_wait_is_an_hour_at_most(service):
    service.conn.execute("update sync.repos set attempts = 1000")
    fail(service, service.claim_directly(1))
    assert 2700 <= repo(service)["wait"].total_seconds() <= 3600


@pytest.mark.rule("BF-13")
def test_a_claim_that_is_over_changes_nothing(service):
    claim = service.claim(1)
    assert fail(service, claim)
    before = service.rows("select r.*, r.ctid::text from sync.repos r")
    assert not fail(service, claim, "again")
    assert service.rows("select r.*, r.ctid::text from sync.repos r") == before
    service.claim_directly(1)
    assert not fail(service, claim, "again")
    assert service.state(1) == "fetching"


@pytest.mark.rule("AC-13")
def test_a_pds_that_says_the_account_is_gone_hides_it(service):
    start = service.position()
    assert fail(service, service.claim(1), p_account_status="takendown")
    row = repo(service)
    assert (row["is_active"], row["account_status"]) == (False, "takendown")
    assert service.texts(1) == {}
    assert [kind for kind, _, _ in service.log(start)] == ["account", "purge"]
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    assert len(service.rows("select * from sync.claim_checks(10)")) == 1, "and asked again"


@pytest.mark.rule("BF-16", "OP-02")
def test_a_host_that_wants_a_pause_gets_it(service):
    service.conn.execute("select set_config('sync.now', '2026-01-01 00:00:00+00', false)")
    fail(service, service.claim_directly(1), p_host_ready_at="2026-01-01 00:05:00+00")
    host = service.row("select * from sync.hosts where host_id > 0")
    assert (host["failures"], host["last_error"]) == (1, "no answer")
    assert host["ready_at"].minute == 5
    fail(service, service.claim_directly(1), p_host_ready_at="2026-01-01 00:02:00+00")
    host = service.row("select * from sync.hosts where host_id > 0")
    assert (host["failures"], host["ready_at"].minute) == (2, 5)


def test_no_host_is_parked_for_more_than_an_hour(service):
    fail(service, service.claim(1), p_host_ready_at="infinity")
    assert service.value(
        "select ready_at <= sync_priv.clock() + interval '1 hour' from sync.hosts where host_id > 0"
    )


def test_an_export_that_works_forgives_the_host(service):
    service.conn.execute("update sync.hosts set failures = 3, last_error = 'x' where host_id > 0")
    service.reconcile(service.claim(1), {"a": "y"}, at=11, data="t11")
    host = service.row("select failures, last_error from sync.hosts where host_id > 0")
    assert (host["failures"], host["last_error"]) == (0, None)


def test_repos_whose_pds_is_unknown_do_not_park_each_other(service):
    service.track(2)
    fail(service, service.claim(2), p_host_ready_at="infinity")
    assert service.value("select ready_at = '-infinity' from sync.hosts where host_id = 0")


@pytest.mark.rule("BF-03", "BF-11")
def test_what_was_held_is_dropped_and_its_rev_remembered(service):
    claim = service.claim(1)
    held = service.apply(
        Event(A, rev=12, since=11, before="t11", data="t12", ops=[Op("create", "c", "live")])
    )
    assert held == {"held": 1}
    fail(service, claim)
    assert service.value("select count(*) from sync_priv.held_events") == 0
    assert service.value("select seen_rev from sync.heads") == rev(12)


@pytest.mark.rule("AC-02", "BF-03", "BF-11")
@pytest.mark.parametrize("batches", [1, 2])
def test_what_was_held_goes_with_the_fetch_that_the_account_ends(service, batches):
    service.claim(1)
    live = Event(A, rev=12, since=11, before="t11", data="t12", ops=[Op("create", "c", "live")])
    gone = Event(A, kind="account", is_active=False, status="deactivated")
    for events in [(live, gone)] if batches == 1 else [(live,), (gone,)]:
        service.apply(*events)
    assert service.state(1) == "desynchronized"
    assert service.value("select count(*) from sync_priv.held_events") == 0
    assert service.value("select seen_rev from sync.heads") == rev(12)


def test_a_long_error_is_cut(service):
    fail(service, service.claim(1), "x" * 10_000)
    assert len(repo(service)["error"]) == 500


def test_a_failed_repo_is_claimed_again_when_its_time_has_come(service):
    fail(service, service.claim(1))
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    service.later("1 hour")
    assert service.claim(1)
