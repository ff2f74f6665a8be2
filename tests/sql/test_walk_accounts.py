"""#account events: who is believed at once, who only after the PDS was asked, and how often."""

import pytest

from tests.sql.driver import Event, did
from tests.sql.standing import AWAY, HOME, Standing

A = did(1)


@pytest.fixture
def service(session):
    service = Standing(session())
    service.settle(1)
    service.later("0 s")  # the clock stands still, however slow the machine
    return service


# One relay -----------------------------------------------------------------------------------


@pytest.mark.rule("D-11", "AC-04", "AC-05", "AC-09")
@pytest.mark.parametrize("status", ["deactivated", "takendown", "suspended", "deleted", "odd"])
def test_a_relay_alone_is_obeyed_at_once_and_checked_when_its_word_is_bad(service, status):
    service.say(1, status)
    assert (service.stands(1), service.texts(1)) == ((False, status), {})
    assert set(service.claim_checks()) == {A}
    service.say(1, None)
    assert (service.stands(1), service.texts(1)) == ((True, None), {"a": "x"})
    service.later("2 minutes")
    assert service.claim_checks() == {}


@pytest.mark.rule("D-11", "AC-13")
def test_a_deletion_that_was_taken_back_purges_nothing_later(service):
    """Its PDS does not know it one day, for another reason: that alone never deletes."""
    service.say(1, "deleted")
    service.say(1, None)
    service.later("30 days")
    claim = service.claim(1)
    names = [claim.repo_id, claim.generation, claim.fetch_token, "repo_not_found"]
    assert service.value("select sync.fail_fetch(%s, %s, %s, %s)", *names) is True
    service.later("31 days")
    assert service.answer(1, "unknown") is True
    assert (service.stands(1), service.stored(1), service.purges()) == ((True, None), 1, 0)


@pytest.mark.rule("AC-18")
def test_a_word_that_changes_nothing_makes_no_work(service):
    service.say(1, None)
    assert service.value("select count(*) from sync_priv.account_checks") == 0
    service.say(1, "deleted")
    service.answer(1, "unknown")
    service.maintain()
    before = service.rows("select r.*, r.xmin::text from sync.repos r")
    start = service.position()
    service.say(1, "deleted")
    assert service.claim_checks() == {}
    assert service.rows("select r.*, r.xmin::text from sync.repos r") == before
    assert service.shape(start) == []


# Several sources -----------------------------------------------------------------------------


@pytest.mark.scenario("A-54")
@pytest.mark.rule("AC-12")
def test_a_relay_that_lags_makes_no_account_flap(service):
    service.add_relay()
    start = service.position()
    for status in ("deactivated", "takendown", "deleted"):
        service.say(1, status)
        assert (service.stands(1), service.texts(1)) == ((True, None), {"a": "x"})
        service.answer(1, "active")
        service.say(1, None)
    assert service.claim_checks() == {}
    assert (service.shape(start), service.state(1)) == ([], "synchronized")


@pytest.mark.scenario("A-54")
@pytest.mark.rule("AC-12", "D-11")
def test_the_pds_decides_between_contradictory_relays(service):
    service.add_relay()
    service.say(1, "deactivated")
    service.say(1, "suspended")
    assert service.answer(1, "inactive", "takendown") is True
    assert service.stands(1) == (False, "takendown")
    service.say(1, None)
    assert service.stands(1) == (False, "takendown"), "a good word waits as well"
    assert service.answer(1, "active") is True
    assert (service.stands(1), service.state(1)) == ((True, None), "desynchronized")


@pytest.mark.rule("AC-10", "AC-12")
def test_when_nobody_answers_a_bad_word_holds_and_a_good_one_waits(service):
    service.add_relay()
    service.say(1, "suspended")
    assert service.answer(1, "none") is True
    assert service.stands(1) == (False, "suspended")
    service.later("10 s")
    service.say(1, None)
    assert service.answer(1, "none") is True
    assert service.stands(1) == (False, "suspended")
    service.later("1 hour")
    assert service.answer(1, "active") is True
    assert service.stands(1) == (True, None)


@pytest.mark.rule("AC-12")
def test_a_word_that_was_taken_back_is_not_obeyed(service):
    service.add_relay()
    service.say(1, "suspended")
    service.say(1, None)
    assert service.answer(1, "none") is True
    assert service.stands(1) == (True, None)


@pytest.mark.rule("AC-18")
def test_what_both_relays_say_is_asked_once(service):
    service.add_relay()
    service.say(1, "suspended")
    serial = service.claim_checks()[A]
    service.say(1, "suspended")
    assert service.answer_to(1, serial, "inactive", "suspended") is True
    assert service.claim_checks() == {}


# PDSes ---------------------------------------------------------------------------------------


@pytest.mark.rule("AC-11", "MG-03", "HO-05")
@pytest.mark.parametrize("status", ["deactivated", "deleted"])
@pytest.mark.parametrize("answer", ["none", "unknown", "active"])
def test_an_old_host_cannot_hide_an_account_whatever_its_new_one_says(service, status, answer):
    service.value("select sync.add_source('wss://old.test', 'pds')")
    service.say(1, status, by=AWAY)
    assert service.answer(1, answer) is True
    assert (service.stands(1), service.purges()) == ((True, None), 0)


@pytest.mark.rule("D-11", "MG-01", "HO-05")
def test_a_new_host_is_heard_before_the_document_names_it(service):
    service.value("select sync.add_source('wss://new.test', 'pds')")
    service.say(1, "deleted", by="https://new.test")
    service.say(1, "deactivated", by=HOME)  # the old one, heard later
    serial = service.claim_checks()[A]
    service.conn.execute("select sync.set_identity(%s, 'a', 'https://new.test', 'did:key:z2')", [A])
    assert service.answer_to(1, serial, "unknown", at="https://new.test") is False
    assert service.answer(1, "unknown", at="https://new.test") is True
    assert (service.stands(1), service.purges()) == ((False, "deleted"), 1)


@pytest.mark.rule("D-11")
def test_that_an_account_is_back_outlives_what_was_said_before(service):
    service.value("select sync.add_source('wss://pds.test', 'pds')")
    service.say(1, "deleted", by=HOME)
    service.say(1, None, by=HOME)
    assert service.answer(1, "unknown") is True
    assert (service.stands(1), service.purges()) == ((True, None), 0)


def test_words_of_long_ago_are_forgotten_with_an_answer(service):
    service.value("select sync.add_source('wss://pds.test', 'pds')")
    service.say(1, "deleted", by=HOME)
    service.answer(1, "active")
    service.conn.execute("select sync.set_identity(%s, 'a', %s, 'did:key:z2')", [A, AWAY])
    service.answer(1, "active", at=AWAY)
    service.conn.execute("select sync.set_identity(%s, 'a', %s, 'did:key:z3')", [A, HOME])
    assert service.answer(1, "unknown") is True
    assert (service.stands(1), service.purges()) == ((True, None), 0)


# Flapping ------------------------------------------------------------------------------------


@pytest.mark.scenario("A-54")
@pytest.mark.rule("AC-16")
def test_an_account_that_flaps_is_fetched_a_few_times_and_then_seldom(service):
    fetched = 0
    start = service.position()
    for _ in range(200):
        service.say(1, "deactivated")
        service.say(1, None)
        if service.state(1) == "desynchronized" and service.stands(1)[0]:
            fetched += 1
            service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    assert fetched == 5
    assert service.stands(1) == (False, "deactivated"), "hidden until its PDS was asked"
    assert len(service.shape(start)) <= 6 * 2 + 5 * 2
    assert service.claim_checks() == {}
    service.later("1 hour")
    assert service.answer(1, "active") is True
    assert service.stands(1) == (True, None)


@pytest.mark.rule("AC-16")
def test_who_flaps_while_hidden_does_not_put_the_question_off(service):
    for _ in range(11):
        service.say(1, "deactivated")
        service.say(1, None)
    wait = "select ask_at - sync_priv.clock() <= interval '5 s' from sync_priv.account_checks"
    assert service.value(wait), "as when it began to be too often"


@pytest.mark.rule("AC-16", "SG-09")
@pytest.mark.parametrize("has_two_relays", [False, True])
def test_who_flaps_faster_than_his_pds_answers_has_it_asked_seldom(service, has_two_relays):
    """Each word overtakes the answer that is under way, and none of them asks for another."""
    if has_two_relays:
        service.add_relay()
    asked = 0
    for second in range(120):
        service.later(f"{second} s")
        serial = service.claim_checks().get(A)
        service.say(1, "deactivated")
        service.say(1, None)
        if serial is not None:
            asked += 1
            assert service.answer_to(1, serial, "active") is False
    assert 1 <= asked <= 12
    service.later("2 hours")
    assert service.answer(1, "active") is True
    assert service.stands(1) == (True, None)


@pytest.mark.rule("AC-16")
def test_after_a_quiet_while_a_relay_is_believed_again(service):
    for _ in range(30):
        service.say(1, "deactivated")
        service.say(1, None)
    service.later("1 hour")
    assert service.answer(1, "active") is True
    service.later("2 hours")
    service.say(1, "deactivated")
    service.say(1, None)
    assert service.stands(1) == (True, None)


@pytest.mark.rule("AC-16", "AC-11")
def test_a_stranger_that_flaps_does_not_hide_anybody(service):
    service.value("select sync.add_source('wss://old.test', 'pds')")
    for number in range(30):
        service.say(1, f"odd {number}", by=AWAY)
    assert service.stands(1) == (True, None)


# Whatever else hides -------------------------------------------------------------------------


@pytest.mark.rule("AC-13", "AC-09")
@pytest.mark.parametrize("status", ["takendown", "suspended", "deactivated", "deleted"])
def test_a_refused_fetch_has_the_pds_asked_once_more(service, status):
    claim = service.claim_directly(1)
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'refused', %s)",
        claim.repo_id, claim.generation, claim.fetch_token, status,
    )  # fmt: skip
    assert service.stands(1) == (False, status)
    assert service.answer(1, "active") is True
    assert (service.stands(1), service.purges()) == ((True, None), 0)


@pytest.mark.rule("AC-13", "D-11")
def test_a_repo_that_is_not_found_has_the_pds_asked_how_its_account_stands(service):
    claim = service.claim_directly(1)
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'repo_not_found: status 400 RepoNotFound')",
        claim.repo_id, claim.generation, claim.fetch_token,
    )  # fmt: skip
    assert service.stands(1) == (True, None)
    assert service.answer(1, "inactive", "deleted") is True
    assert (service.stands(1), service.purges()) == ((False, "deleted"), 1)


@pytest.mark.rule("D-11", "CU-09")
def test_what_a_comparison_finds_deleted_is_confirmed_too(service):
    report = "select sync.report_revs(array[%s], array[null]::text[], array[false], array[%s])"
    service.value(report, A, "deactivated")
    assert service.answer(1, "inactive", "deactivated") is True
    service.value(report, A, "deactivated")
    assert service.claim_checks() == {}, "it says nothing new"
    service.value(report, A, "deleted")
    assert (service.stands(1), service.purges()) == ((False, "deleted"), 0)
    assert service.answer(1, "inactive", "deleted") is True
    assert service.purges() == 1


# Identities ----------------------------------------------------------------------------------


def looked_up(service: Standing) -> bool:
    """Claim the identities that are due; tell whether A's is among them."""
    return A in {row["did"] for row in service.rows("select * from sync.claim_identities(9)")}


def resolve(service: Standing, *, pds: str = HOME, key: str = "did:key:z1", handle="a.test"):
    service.value("select sync.set_identity(%s, %s, %s, %s)", A, handle, pds, key)


@pytest.mark.rule("IN-17", "MT-07")
@pytest.mark.scenario("A-21")
def test_an_unchanged_document_is_looked_at_once_more(service):
    service.apply(Event(A, kind="identity"))
    assert looked_up(service)
    resolve(service)
    assert not looked_up(service), "not at once"
    service.later("61 s")
    assert looked_up(service)
    resolve(service)
    service.later("1 hour")
    assert not looked_up(service), "and not for ever"


@pytest.mark.rule("IN-17")
@pytest.mark.parametrize(
    ("change", "is_again"),
    [({"key": "did:key:z2"}, False), ({"pds": AWAY}, False), ({"handle": "b.test"}, False),
     ({"handle": "handle.invalid"}, True)],
)  # fmt: skip
def test_a_changed_document_is_proof_unless_its_handle_fails(service, change, is_again):
    service.apply(Event(A, kind="identity"))
    resolve(service, **change)
    service.later("61 s")
    assert looked_up(service) is is_again


@pytest.mark.rule("MT-08", "IN-12")
def test_identity_events_cannot_make_us_look_all_the_time(service):
    lookups = 0
    for _ in range(100):
        service.apply(Event(A, kind="identity"))
        lookups += looked_up(service)
        resolve(service)
    assert lookups == 20
    service.later("61 s")
    assert looked_up(service), "the last one is heard all the same"


@pytest.mark.rule("HO-06", "MG-01")
def test_a_new_pds_is_asked_how_the_account_stands(service):
    resolve(service, key="did:key:z2")
    assert service.claim_checks() == {}
    resolve(service, pds=AWAY)
    assert service.answer(1, "inactive", "deactivated", at=AWAY) is True
    assert service.stands(1) == (False, "deactivated")


@pytest.mark.rule("MG-07", "CM-15")
@pytest.mark.scenario("A-26")
def test_a_lower_rev_is_refused_from_whoever_controls_the_did_now(service):
    resolve(service, key="did:key:z9", pds="https://stranger.test")
    service.apply(Event(A, rev=5, since=4, before="t4", data="t5"))
    assert service.state(1) == "synchronized"
    service.conn.execute("select sync.resync_repos(%s)", [[A]])
    outcome = service.reconcile(service.claim(1), {"other": "stranger"}, at=5, data="t5")
    assert (outcome["outcome"], service.texts(1)) == ("stale_export", {"a": "x"})
