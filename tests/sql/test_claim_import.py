"""sync.claim_import(): a repo from a file, tracked or not."""

import psycopg
import pytest

from tests.sql.driver import LIKE, POST, Claim, Driver, Event, did
from tests.sql.waiting import background, wait_until_blocked

A = did(1)


@pytest.fixture
def service(session):
    return Driver(session())


def claim(service: Driver, number: int = 1) -> Claim | None:
    rows = service.rows("select * from sync.claim_import(%s)", did(number))
    return Claim(**rows[0]) if rows else None


def test_a_repo_that_nobody_tracks_is_stored_and_shown_but_not_followed(service):
    mine = claim(service)
    outcome = service.reconcile(mine, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    assert service.texts(1) == {"a": "x"}
    assert service.apply(Event(A, rev=11, since=10)) == {"untracked": 1}
    service.conn.execute("update sync.repos set sync_state = 'desynchronized'")
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    assert service.rows("select did, is_tracked from sync.tracked_repos(0, 99)") == [
        {"did": A, "is_tracked": False}
    ]


def test_importing_again_reconciles(service):
    service.reconcile(claim(service), {"a": "x"}, at=10, data="t10")
    again = claim(service)
    assert again is not None
    assert again.has_records
    outcome = service.reconcile(again, {"a": "y"}, at=11, data="t11")
    assert (outcome["outcome"], outcome["updated"]) == ("synchronized", 1)


def test_a_tracked_repo_stays_tracked(service):
    service.load(1, {"a": "x"}, at=10, data="t10")
    before = service.value("select sync.filter_generation()")
    outcome = service.reconcile(claim(service), {"a": "y"}, at=11, data="t11")
    assert (outcome["outcome"], outcome["updated"]) == ("desynchronized", 1)
    assert service.value("select tracked_by from sync.repos") == "did"
    assert service.value("select sync.filter_generation()") == before


def test_a_tracked_repo_takes_no_unsigned_file(service):
    service.load(1, {"a": "x"}, at=10, data="t10")
    (row,) = service.rows("select * from sync.claim_import(%s)", A)
    assert service.import_unsigned(row, {"a": "lie"}, at=11, data="t11")["outcome"] == "unsigned"
    assert service.texts(1) == {"a": "x"}
    assert service.state(1) == "desynchronized"


def test_an_unsigned_import_says_so(service):
    (row,) = service.rows("select * from sync.claim_import(%s)", A)
    outcome = service.import_unsigned(row, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    assert service.value("select trust from sync.heads") == "unsigned"


def test_while_a_fetch_runs_there_is_nothing_to_claim(service):
    service.track(1)
    service.claim(1)
    assert claim(service) is None
    assert service.state(1) == "fetching"


def test_collections_that_were_chosen_before_stay_the_choice(service):
    service.conn.execute("select sync.track_collections(%s)", [[POST]])
    outcome = service.reconcile(claim(service), {"a": "x", (LIKE, "l"): "y"}, at=10, data="t10")
    assert outcome["created"] == 1


def test_a_purge_has_to_end_before_the_repo_comes_back(service, session):
    service.load(1, {"a": "x"}, at=10, data="t10")
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    service.conn.execute("select sync.untrack_repos(%s)", [[A]])
    service.maintain()
    assert claim(service) is None
    assert service.value("select tracked_by from sync.repos") is None
    older.commit()
    service.maintain()
    service.reconcile(claim(service), {"b": "y"}, at=11, data="t11")
    service.maintain()
    assert service.texts(1) == {"b": "y"}


def test_a_purge_of_a_collection_it_may_bring_has_to_end_first(service):
    service.load(2, {(LIKE, "l"): "x"}, at=10, data="t10")
    with service.conn.transaction():
        service.conn.execute("select sync.untrack_collections('{*}')")
        service.conn.execute("select sync.track_collections('{*}')")
    assert claim(service) is None
    service.maintain()
    assert claim(service) is not None


@pytest.mark.rule("SX-01")
def test_a_malformed_did_is_refused(service):
    with pytest.raises(psycopg.Error) as refusal:
        service.rows("select * from sync.claim_import('alice.test')")
    assert refusal.value.sqlstate == "SY002"


def test_a_repo_that_is_untracked_meanwhile_is_not_claimed(service, session):
    """A tombstone in `fetching` would belong to nobody."""
    service.load(1, {"a": "x"}, at=10, data="t10")
    operator = session(autocommit=False)
    operator.execute("select sync.untrack_repos(%s)", [[A]])
    with background(service.conn, lambda: claim(service)) as claimed:
        wait_until_blocked(operator, service.conn)
        operator.commit()
        assert claimed.result() is None
    row = service.row("select sync_state, tracked_by from sync.repos")
    assert tuple(row.values()) == ("pending", None)


def test_a_tombstone_of_an_account_that_was_not_active_can_be_imported(service):
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.apply(Event(A, "account", is_active=False, status="deactivated"))
    service.value("select sync.untrack_repos(%s)", [A])
    service.maintain()
    outcome = service.reconcile(claim(service), {"a": "y"}, at=11, data="t11")
    assert outcome["outcome"] == "synchronized"
    assert service.texts(1) == {"a": "y"}


def test_a_tracked_repo_is_fetched_after_an_import_since_a_file_may_be_of_any_age(session):
    service = Driver(session())
    service.track(1)
    row = service.row("select * from sync.claim_import(%s)", did(1))
    claim = Claim(row["repo_id"], row["generation"], row["fetch_token"], row["has_records"])
    outcome = service.reconcile(claim, {"a": "x"}, at=10, data="t10")
    assert (outcome["outcome"], outcome["created"]) == ("desynchronized", 1)
    assert service.texts(1) == {"a": "x"}
    assert (
        service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")["outcome"]
        == "synchronized"
    )
