"""Gap repair: note_gap(), open_gaps(), list_heads(), report_revs(), close_gap()."""

import pytest

from tests.sql.driver import Driver, Event, did, rev
from tests.sql.waiting import impatient

A, B = did(1), did(2)


@pytest.fixture
def service(session):
    service = Driver(session())
    for number in (1, 2):
        service.load(number, {"a": "x"}, at=10, data="t10")
    return service


def report(
    service: Driver, *reports: tuple[str, str | None, bool | None, str | None]
) -> int | None:
    """Report (did, rev, is_active, status) tuples in one call."""
    columns = [list(column) for column in zip(*reports, strict=True)]
    return service.value(
        "select sync.report_revs(%s::text[], %s::text[], %s::boolean[], %s::text[])", *columns
    )


# Gaps ----------------------------------------------------------------------------------------


def gaps(service: Driver):
    return service.rows("select * from sync.open_gaps()")


@pytest.mark.rule("CU-09")
def test_a_gap_is_open_until_the_comparison_for_it_is_done(service):
    assert gaps(service) == []
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    (gap,) = gaps(service)
    assert gap["source_id"] == service.source_id
    service.conn.execute("select sync.close_gap(%s, %s)", list(gap.values()))
    assert gaps(service) == []


@pytest.mark.rule("CU-09")
def test_a_newer_gap_survives_the_comparison_for_an_older_one(service):
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    (old,) = gaps(service)
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    service.conn.execute("select sync.close_gap(%s, %s)", list(old.values()))
    (new,) = gaps(service)
    assert new["gap_since"] > old["gap_since"]


@pytest.mark.rule("CU-09")
def test_repos_are_compared_once_the_last_time_is_too_long_ago(service):
    def compare(older_than: str) -> int:
        return service.value("select sync.compare_repos(%s::interval)", older_than)

    assert compare("1 hour") == 0
    assert compare("0") == 1
    assert compare("0") == 0, "it is under way"
    (gap,) = gaps(service)
    service.conn.execute("select sync.close_gap(%s, %s)", list(gap.values()))
    assert compare("1 hour") == 0
    assert service.value("select compared_at is not null from sync.source_status")
    service.conn.execute("select sync.pause_source('ws://relay.test')")
    assert compare("0") == 0


@pytest.mark.rule("CU-09")
@pytest.mark.scenario("A-11")
def test_one_pds_that_never_answers_does_not_put_comparisons_off_for_ever(service):
    compare = "select sync.compare_repos(%s::interval)"
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    service.conn.execute("select set_config('sync.now', (now() + '6 days')::text, false)")
    assert service.value(compare, "7 days") == 0
    service.conn.execute("select set_config('sync.now', (now() + '8 days')::text, false)")
    assert service.value(compare, "7 days") == 1
    assert service.value(compare, "0") == 0, "it is under way"
    service.conn.execute("select set_config('sync.now', (now() + '9 days')::text, false)")
    assert service.value(compare, "0") == 1, "an operator need not wait for it"


# Heads ---------------------------------------------------------------------------------------


def test_heads_come_in_pages_by_repo_id(service):
    service.load(3, {}, at=12, data="t12")
    first = service.rows("select * from sync.list_heads(0, 2)")
    second = service.rows("select * from sync.list_heads(%s, 2)", first[-1]["repo_id"])
    assert [row["did"] for row in first + second] == [A, B, did(3)]
    assert [row["rev"] for row in first + second] == [rev(10), rev(10), rev(12)]
    assert service.rows("select * from sync.list_heads(%s, 2)", second[-1]["repo_id"]) == []


def test_only_repos_that_claim_to_be_current_or_are_not_active_are_compared(service):
    service.track(3)
    service.conn.execute("select sync.resync_repos(%s)", [[A]])
    assert [row["did"] for row in service.rows("select * from sync.list_heads(0, 9)")] == [B]
    service.apply(Event(did(3), kind="account", is_active=False, status="suspended"))
    service.conn.execute("select sync.untrack_repos(%s)", [[B]])
    assert [row["did"] for row in service.rows("select * from sync.list_heads(0, 9)")] == [did(3)]


@pytest.mark.rule("MT-07", "CU-09")
def test_identities_that_were_doubted_are_looked_up_within_a_minute(service):
    for did_ in (A, B):
        service.value(
            "select sync.set_identity(%s, 'a.test', 'https://pds.test', 'did:key:a')", did_
        )
    service.value("select sync.doubt_identities(%s)", [A, did(9)])
    claimed = "select did from sync.claim_identities(10)"
    assert service.rows(claimed) == [], "it was looked up a moment ago"
    service.conn.execute("select set_config('sync.now', (now() + '2 minutes')::text, false)")
    assert [row["did"] for row in service.rows(claimed)] == [A]


# Reports -------------------------------------------------------------------------------------


@pytest.mark.rule("CU-09")
def test_a_newer_rev_sends_the_repo_to_the_fetchers(service, session):
    listener = session()
    listener.execute("listen sync_work")
    assert report(service, (A, rev(11), True, None), (B, rev(10), True, None)) == 1
    row = service.row("select * from sync.repos where did = %s", A)
    assert (row["sync_state"], row["error"]) == ("desynchronized", "gap")
    assert service.state(2) == "synchronized"
    assert service.claim(1)
    assert len(list(listener.notifies(timeout=60, stop_after=1))) == 1


def test_an_unsigned_word_raises_no_rev_and_a_lower_one_is_no_news(service):
    assert report(service, (A, rev(99), None, None), (B, rev(9), None, None)) == 1
    assert service.value("select max(seen_rev) from sync.heads") == rev(10)
    outcome = service.reconcile(service.claim(1), {"a": "y"}, at=11, data="t11")
    assert outcome["outcome"] == "synchronized"


def test_reporting_again_changes_nothing(service):
    report(service, (A, rev(11), True, None))
    before = service.rows("select r.*, r.ctid::text from sync.repos r order by repo_id")
    assert report(service, (A, rev(11), True, None)) == 0
    assert service.rows("select r.*, r.ctid::text from sync.repos r order by repo_id") == before


@pytest.mark.rule("AC-08")
def test_an_account_that_went_away_meanwhile_is_hidden(service):
    start = service.position()
    assert report(service, (A, None, False, "takendown")) == 0
    row = service.row("select * from sync.repos where did = %s", A)
    assert (row["is_active"], row["account_status"]) == (False, "takendown")
    assert [kind for kind, _, _ in service.log(start)] == ["account", "purge"]
    assert report(service, (A, None, False, "takendown")) == 0
    assert [kind for kind, _, _ in service.log(start)] == ["account", "purge"]


@pytest.mark.rule("AC-06", "AC-07")
def test_an_account_that_came_back_meanwhile_is_shown_and_fetched(service):
    service.apply(Event(A, kind="account", is_active=False, status="suspended"))
    assert report(service, (A, rev(10), True, None)) == 1
    assert service.state(1) == "desynchronized"
    assert service.texts(1) == {"a": "x"}
    assert service.value("select account_status from sync.repos where did = %s", A) is None


@pytest.mark.rule("AC-18", "D-11")
@pytest.mark.parametrize("is_active", [False, True])
def test_who_is_changed_by_hearsay_is_asked_again_until_it_is_no_news(service, is_active):
    if is_active:
        service.apply(Event(A, kind="account", is_active=False, status="takendown"))
    service.conn.execute("update sync_priv.account_checks set ask_at = null")
    report(service, (A, None, is_active, "takendown"), (B, None, True, None))
    asked = "select did from sync.claim_checks(9)"
    assert [row["did"] for row in service.rows(asked)] == [A]
    service.conn.execute("update sync_priv.account_checks set ask_at = null")
    report(service, (A, None, is_active, "takendown"))
    assert service.rows(asked) == []


def test_nobody_knows_nothing_changes(service):
    assert report(service, (A, None, None, None), (did(9), rev(11), True, None)) == 0
    assert service.state(1) == "synchronized"


@pytest.mark.rule("CU-09")
def test_a_repo_that_is_locked_is_reported_again(service, session):
    other = session(autocommit=False)
    other.execute("select from sync.repos where did = %s for no key update", [A])
    impatient(service.conn)
    assert report(service, (A, rev(11), True, None), (B, rev(11), True, None)) is None
    other.rollback()
    assert [service.state(n) for n in (1, 2)] == ["synchronized", "desynchronized"]
    assert report(service, (A, rev(11), True, None), (B, rev(11), True, None)) == 1
    assert service.state(1) == "desynchronized"


def test_a_running_fetch_is_left_alone(service):
    claim = service.claim_directly(1)
    assert report(service, (A, rev(11), False, "suspended")) == 0
    assert service.reconcile(claim, {"a": "y"}, at=11, data="t11")["outcome"] == "synchronized"


@pytest.mark.rule("CU-09")
def test_only_repos_fetched_before_the_gap_are_compared(service):
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    service.load(3, {}, at=12, data="t12")
    heads = service.rows(
        "select * from sync.list_heads(0, 9, (select gap_since from sync.open_gaps()))"
    )
    assert [row["did"] for row in heads] == [A, B]


@pytest.mark.rule("CU-09", "BF-01")
def test_a_reconcile_that_was_let_through_before_the_gap_is_compared(service, session):
    """It commits when the comparison has begun, with an export from before the gap."""
    other = Driver(session())
    other.track(3)
    other.locate(3)
    claim = other.claim(3)
    with other.conn.transaction():
        other.reconcile(claim, {"a": "x"}, at=12, data="t12")
        service.conn.execute("select sync.note_gap(%s)", [service.source_id])
        heads = "select did from sync.list_heads(0, 9, (select gap_since from sync.open_gaps()))"
        assert did(3) in [row["did"] for row in service.rows(heads)]
        assert report(service, (did(3), rev(13), True, None)) is None, "it is to be told again"
    assert service.state(3) == "synchronized"
    assert report(service, (did(3), rev(13), True, None)) == 1
    assert service.state(3) == "desynchronized"


@pytest.mark.rule("CU-09", "BF-01")
@pytest.mark.scenario("A-06")
def test_an_export_asked_for_before_the_gap_is_compared_when_it_is_there(service):
    """What was lost may be neither in the export nor in the stream.

    Nor is the fetch given up: a server may say every second that our cursor is too old.
    """
    service.track(3)
    service.locate(3)
    claim = service.claim(3)
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    assert report(service, (did(3), rev(13), True, None)) is None, "it is to be told again"
    assert service.reconcile(claim, {"a": "x"}, at=12, data="t12")["outcome"] == "synchronized"
    assert report(service, (did(3), rev(13), True, None)) == 1
    again = service.claim(3)
    assert report(service, (did(3), rev(13), True, None)) == 0, "it began behind the gap"
    assert service.reconcile(again, {"a": "x"}, at=13, data="t13")["outcome"] == "synchronized"


@pytest.mark.rule("CU-09", "BF-01")
def test_a_fetch_that_looks_for_its_pds_starts_over_behind_the_gap(service):
    """There is nobody yet to compare it with."""
    service.track(3)
    claim = service.claim(3)
    service.conn.execute("select sync.note_gap(%s)", [service.source_id])
    assert service.reconcile(claim, {"a": "x"}, at=12, data="t12")["outcome"] == "superseded"
    assert service.state(3) == "desynchronized"
    again = service.claim(3)
    assert service.reconcile(again, {"a": "x"}, at=12, data="t12")["outcome"] == "synchronized"
