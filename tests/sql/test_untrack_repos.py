"""sync.untrack_repos(): hidden at once, purged in chunks, a tombstone for ever."""

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.sql.driver import Driver, Event, Op, did
from tests.sql.plans import ANALYZED, Plans, most_rows, show_plans
from tests.sql.waiting import impatient


@pytest.fixture
def service(session):
    service = Driver(session())
    service.load(1, {"a": "x", "b": "y"}, at=10, data="t10")
    service.load(2, {"a": "z"}, at=10, data="t10")
    return service


def untrack(service: Driver, *numbers: int) -> int:
    return service.value("select sync.untrack_repos(%s)", [did(n) for n in numbers])


def stored(service: Driver, number: int) -> int:
    return service.value(
        "select count(*) from sync.stored_records s join sync.repos r using (repo_id)"
        " where r.did = %s",
        did(number),
    )


def commit(number: int, at: int, *ops: Op) -> Event:
    return Event(did(number), rev=at, since=at - 1, before=f"t{at - 1}", data=f"t{at}", ops=ops)


def test_records_are_hidden_at_once_and_readers_get_one_purge(service):
    start = service.position()
    assert untrack(service, 1) == 1
    assert service.texts(1) == {}
    assert stored(service, 1) == 2
    assert service.texts(2) == {"a": "z"}
    assert service.shape(start) == [("purge", did(1), None)]


def test_upkeep_deletes_what_is_hidden_without_another_word(service):
    untrack(service, 1)
    start = service.position()
    service.maintain()
    assert (stored(service, 1), stored(service, 2)) == (0, 1)
    assert service.value("select count(*) from sync_priv.purges") == 0
    assert service.shape(start) == []


@pytest.mark.rule("AC-03", "D-15")
def test_a_tombstone_keeps_the_did_and_forgets_the_head(service):
    untrack(service, 1)
    row = service.row(
        "select * from sync.repos join sync.heads using (repo_id) where did = %s", did(1)
    )
    assert (row["tracked_by"], row["sync_state"]) == (None, "pending")
    assert (row["rev"], row["data_cid"], row["commit_block"], row["seen_rev"]) == (None,) * 4
    assert service.apply(commit(1, 11, Op("create", "c", "late"))) == {"untracked": 1}
    assert service.texts(1) == {}


def test_untracking_again_or_what_was_never_tracked_changes_nothing(service):
    assert untrack(service, 1, 9) == 1
    start = service.position()
    assert untrack(service, 1) == 0
    assert untrack(service, 9) == 0
    assert service.shape(start) == []
    assert service.value("select count(*) from sync_priv.purges") == 1


def test_an_account_that_was_hidden_already_owes_no_second_purge(service):
    service.apply(Event(did(1), kind="account", is_active=False, status="suspended"))
    start = service.position()
    untrack(service, 1)
    assert service.shape(start) == []


def test_a_fetch_that_runs_is_worth_nothing_afterwards(service):
    service.track(3)
    claim = service.claim(3)
    untrack(service, 3)
    outcome = service.reconcile(claim, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "superseded"
    assert stored(service, 3) == 0


def test_lanes_learn_of_it_by_the_filter_generation(service):
    before = service.value("select sync.filter_generation()")
    untrack(service, 1)
    now = service.value("select sync.filter_generation()")
    assert service.rows("select did, is_tracked from sync.tracked_repos(%s, %s)", before, now) == [
        {"did": did(1), "is_tracked": False}
    ]


def test_deleting_waits_for_transactions_that_may_still_write_what_goes(service, session):
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    untrack(service, 1)
    impatient(service.conn)
    service.maintain()
    service.maintain()
    assert (stored(service, 1), service.texts(1)) == (2, {})
    older.commit()
    service.maintain()
    assert stored(service, 1) == 0


def test_it_is_fetched_again_only_when_nothing_of_it_is_left(service, session):
    service.locate(1)
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    untrack(service, 1)
    service.maintain()
    service.track(1)
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    assert service.value("select count(*) from sync.fetch_queue") == 0
    assert service.texts(1) == {}
    older.commit()
    service.maintain()
    outcome = service.reconcile(service.claim(1), {"new": "n"}, at=12, data="t12")
    assert outcome["outcome"] == "synchronized"
    assert service.texts(1) == {"new": "n"}


def test_a_large_repo_goes_in_chunks(service):
    service.conn.execute(
        "insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev)"
        " select s.repo_id, s.collection_id, 'r' || n, s.cid, s.rev"
        " from sync.stored_records s, generate_series(1, 5000) n where s.rkey = 'b'"
    )
    untrack(service, 1)
    assert service.value("select sync.maintain()")
    assert stored(service, 1) == 2
    assert service.value("select sync.maintain()")
    assert stored(service, 1) == 0
    assert not service.value("select sync.maintain()")


def test_events_held_for_a_repo_that_goes_are_forgotten(service, session):
    other = session(autocommit=False)
    other.execute("select sync.untrack_repos(%s)", [[did(1)]])
    assert service.apply(commit(1, 11, Op("delete", "a"))) == {"held": 1}
    other.commit()
    service.apply()
    service.maintain()
    assert service.value("select count(*) from sync_priv.held_events") == 0


def test_the_log_of_many_repos_takes_no_nested_loop(postgres, clone):
    """The first firing of the trigger has few rows, and its plans stay for the session."""
    dids = [f"did:web:h{number}.test" for number in range(1000)]
    url = postgres.admin_url(clone.rpartition("/")[2])
    with psycopg.connect(url, row_factory=dict_row, autocommit=True) as conn:
        service = Driver(conn)
        service.track(1)
        service.value("select sync.track_repos(%s)", dids)
        show_plans(conn, ANALYZED)
        plans = Plans(service)
        assert service.value("select sync.untrack_repos(%s)", dids) == len(dids)
    assert any("new_rows" in plan for plan in plans.seen)
    assert max(map(most_rows, plans.seen)) <= 2 * len(dids)
