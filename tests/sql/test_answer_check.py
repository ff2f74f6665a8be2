"""claim_checks() and answer_check(): the current PDS has the last word, and only it deletes."""

import psycopg
import pytest

from tests.sql.driver import Event, Op, did
from tests.sql.standing import AWAY, HOME, Standing
from tests.sql.waiting import impatient, wait_until_gone

A = did(1)


@pytest.fixture
def service(session):
    service = Standing(session())
    service.settle(1, 2)
    return service


# Deletion is confirmed -----------------------------------------------------------------------


@pytest.mark.rule("D-11", "D-15", "AC-03", "AC-06", "AC-07")
@pytest.mark.parametrize(
    "answer", [("inactive", "deleted"), ("unknown", None), ("tombstoned", None)]
)
def test_a_confirmed_deletion_purges_and_the_same_rev_is_fetched_again(service, answer):
    start = service.position()
    service.say(1, "deleted")
    assert (service.stands(1), service.stored(1), service.purges()) == ((False, "deleted"), 1, 0)
    assert service.repo(1)["rev"] is not None, "nothing goes before it is confirmed"
    assert service.answer(1, *answer) is True
    row = service.repo(1)
    assert (row["rev"], row["data_cid"], row["commit_block"], row["seen_rev"]) == (None,) * 4
    assert (row["sync_state"], row["tracked_by"], service.purges()) == ("pending", "did", 1)
    service.maintain()
    assert (service.stored(1), service.purges()) == (0, 0)
    late = Event(A, rev=11, since=10, before="t10", data="t11", ops=[Op("create", "b", "late")])
    assert service.apply(late) == {"dropped": 1}
    assert service.shape(start) == [("account", A, None), ("purge", A, None)]
    service.say(1, None)
    assert service.texts(1) == {}
    outcome = service.reconcile(service.claim(1), {"a": "x"}, at=11, data="t11")
    assert (outcome["outcome"], service.texts(1)) == ("synchronized", {"a": "x"})
    kinds = [kind for kind, _, _ in service.shape(start)]
    assert kinds == ["account", "purge", "account", "snapshot"]


@pytest.mark.rule("D-15")
def test_the_very_same_rev_may_come_back(service):
    service.say(1, "deleted")
    service.answer(1, "unknown")
    service.maintain()
    service.say(1, None)
    assert service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")["outcome"] == (
        "synchronized"
    )
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("D-11", "AC-13")
@pytest.mark.parametrize("status", ["deactivated", "takendown", None])
def test_that_a_pds_does_not_know_an_account_deletes_nothing_alone(service, status):
    if status is None:
        service.conn.execute("select sync.set_identity(%s, 'a', %s, 'did:key:z1')", [A, AWAY])
    else:
        service.say(1, status)
    assert service.answer(1, "unknown", at=AWAY if status is None else HOME) is True
    assert service.stands(1) == (status is None, status)
    assert (service.stored(1), service.purges()) == (1, 0)
    assert service.claim_checks() == {}


@pytest.mark.rule("D-11", "AC-10")
def test_without_an_answer_the_question_is_put_again_later_each_time(service):
    service.say(1, "deleted")
    for wait, attempts in (("0 s", 1), ("6 s", 2), ("20 s", 3)):
        service.later(wait)
        assert service.answer(1, "none") is True
        assert service.claim_checks() == {}
        assert service.value("select max(attempts) from sync_priv.account_checks") == attempts
    assert (service.stands(1), service.stored(1), service.purges()) == ((False, "deleted"), 1, 0)
    service.later("1 hour")
    assert service.answer(1, "unknown") is True
    assert service.purges() == 1


@pytest.mark.rule("D-11", "AC-09")
def test_the_pds_may_contradict(service):
    service.say(1, "deleted")
    assert service.texts(1) == {}
    assert service.answer(1, "active") is True
    assert (service.stands(1), service.state(1)) == ((True, None), "desynchronized")
    assert service.texts(1) == {"a": "x"}
    service.say(1, "deleted")
    assert service.answer(1, "inactive", "suspended") is True
    assert (service.stands(1), service.purges()) == ((False, "suspended"), 0)


@pytest.mark.rule("AC-14")
def test_a_tombstone_counts_as_deleted_whoever_found_it(service):
    service.conn.execute("select sync.fail_identity(%s, 'transient')", [A])
    assert service.claim_checks() == {}
    service.conn.execute("select sync.fail_identity(%s, 'tombstoned')", [A])
    assert service.stands(1) == (True, None), "it is looked up once more first"
    assert service.answer(1, "tombstoned", at=None) is True
    assert (service.stands(1), service.purges()) == ((False, "deleted"), 1)
    assert service.texts(1) == {}


@pytest.mark.rule("BF-13")
def test_a_fetch_that_runs_brings_nothing_back(service):
    claim = service.claim_directly(1)
    service.say(1, "deleted")
    service.answer(1, "unknown")
    assert service.reconcile(claim, {"a": "y"}, at=12, data="t12")["outcome"] == "superseded"
    service.maintain()
    assert service.stored(1) == 0


def test_it_is_loaded_again_only_when_nothing_of_it_is_left(service, session):
    older = session(autocommit=False)
    older.execute("select pg_current_xact_id()")
    service.say(1, "deleted")
    service.answer(1, "unknown")
    service.say(1, None)
    service.maintain()
    assert (service.stored(1), service.texts(1)) == (1, {})
    assert service.rows("select * from sync.claim_fetches(10, 10)") == []
    older.commit()
    service.maintain()
    assert service.claim(1)


def test_confirming_again_purges_nothing_twice(service):
    service.say(1, "deleted")
    service.answer(1, "unknown")
    service.maintain()
    service.conn.execute("select sync.set_identity(%s, 'a', %s, 'did:key:z1')", [A, HOME])
    start = service.position()
    assert service.answer(1, "unknown") is True
    assert (service.purges(), service.shape(start)) == (0, [])


@pytest.mark.rule("D-11", "D-15")
def test_a_crash_between_confirmation_and_purge_leaves_neither(service, session):
    """The service is killed before its transaction ends: the question is simply put again."""
    service.say(1, "deleted")
    serial = service.claim_checks()[A]
    other = session(autocommit=False)
    other.execute("select sync.answer_check(%s, %s, %s, 'unknown')", [A, serial, HOME])
    pid = other.info.backend_pid
    service.value("select pg_terminate_backend(%s)", pid)
    with pytest.raises(psycopg.OperationalError):
        other.execute("commit")
    wait_until_gone(service.conn, pid)  # until then it has the question locked
    assert (service.purges(), service.stored(1), service.stands(1)) == (0, 1, (False, "deleted"))
    assert service.repo(1)["rev"] is not None
    assert service.claim_checks() == {}, "whoever asks has a minute"
    service.later("61 s")
    assert service.answer(1, "unknown") is True
    assert (service.purges(), service.repo(1)["rev"]) == (1, None)


# Which answers count -------------------------------------------------------------------------


@pytest.mark.rule("MG-03", "AC-11", "HO-05")
@pytest.mark.parametrize("answer", [("inactive", "deleted"), ("unknown", None), ("active", None)])
def test_an_old_hosts_answer_counts_for_nothing(service, answer):
    service.say(1, "deleted")
    assert service.answer(1, *answer, at=AWAY) is True
    assert (service.stands(1), service.purges()) == ((False, "deleted"), 0)
    service.later("6 s")
    assert A in service.claim_checks()


@pytest.mark.rule("HO-05", "AC-09")
def test_an_answer_is_over_when_more_was_said_since(service):
    service.say(1, "deleted")
    old = service.claim_checks()[A]
    service.say(1, None)
    assert service.answer_to(1, old, "inactive", "deleted") is False
    assert service.stands(1) == (True, None)
    service.say(1, "deactivated")
    assert service.answer_to(1, old, "active") is False
    assert service.answer(1, "inactive", "deactivated") is True


def test_a_replayed_answer_changes_nothing(service):
    service.say(1, "deleted")
    serial = service.claim_checks()[A]
    assert service.answer_to(1, serial, "active") is True
    assert service.answer_to(1, serial, "inactive", "deleted") is False
    assert service.answer_to(9, serial, "active") is None
    assert service.stands(1) == (True, None)


def test_an_untracked_account_is_not_asked_about(service):
    service.say(1, "deleted")
    serial = service.claim_checks()[A]
    service.conn.execute("select sync.untrack_repos(%s)", [[A]])
    assert service.answer_to(1, serial, "active") is False
    service.later("2 minutes")
    assert service.claim_checks() == {}
    service.conn.execute("select sync.track_repos(%s)", [[A]])
    assert service.stands(1) == (True, None)


# Locks ---------------------------------------------------------------------------------------


def test_a_locked_repo_is_not_waited_for(service, session):
    service.say(1, "deleted")
    serial = service.claim_checks()[A]
    other = session(autocommit=False)
    other.execute("select from sync.repos where did = %s for no key update", [A])
    impatient(service.conn)
    assert service.answer_to(1, serial, "unknown") is None
    service.conn.execute("select sync.fail_identity(%s, 'tombstoned')", [A])
    other.rollback()
    assert service.answer_to(1, serial, "unknown") is True


def test_two_who_claim_ask_about_different_accounts(service, session):
    service.say(1, "deactivated")
    service.say(2, "deactivated")
    other = session(autocommit=False)
    (first,) = other.execute("select did from sync.claim_checks(1)").fetchall()
    impatient(service.conn)
    assert set(service.claim_checks()) == {A, did(2)} - {first["did"]}
    other.rollback()
    assert set(service.claim_checks()) == {first["did"]}


def test_those_that_wait_longest_are_asked_about_first(service):
    service.say(2, "deactivated")
    service.later("1 s")
    service.say(1, "deactivated")
    assert set(service.claim_checks(1)) == {did(2)}


@pytest.mark.rule("D-12", "FA-13")
@pytest.mark.parametrize(
    ("by", "answer", "status", "counted"),
    [
        (AWAY, "active", None, ("wrong_host", "old.test")),
        (HOME, "active", None, ("account_denied", "pds.test")),
        (None, "inactive", "suspended", ("account_denied", "")),
        (None, "inactive", "takendown", None),
        (AWAY, "none", None, None),  # nobody knows yet
    ],
)
def test_a_word_that_came_to_nothing_is_counted(service, by, answer, status, counted):
    service.add_relay()
    service.say(1, "takendown", by=by)
    assert service.answer(1, answer, status) is True
    found = service.rows("select reason, host from sync.problems where did = %s", A)
    assert [tuple(row.values()) for row in found] == ([] if counted is None else [counted])
