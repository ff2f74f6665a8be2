"""sync.claim_identities(), set_identity(), fail_identity(): what a did resolves to."""

import itertools

import pytest

from tests.sql.driver import Driver, Event, did
from tests.sql.waiting import impatient

A = did(1)
PDS = "https://pds.test"


@pytest.fixture
def service(session):
    service = Driver(session())
    service.track(1, 2, 3)
    return service


def claim(service: Driver, limit: int = 10) -> list[str]:
    return sorted(r["did"] for r in service.rows("select * from sync.claim_identities(%s)", limit))


def resolve(service: Driver, number: int = 1, *, pds=PDS, key="did:key:z1", handle="a.test"):
    return service.value("select sync.set_identity(%s, %s, %s, %s)", did(number), handle, pds, key)


def repo(service: Driver, number: int = 1):
    return service.row("select * from sync.repos where did = %s", did(number))


# Claiming ------------------------------------------------------------------------------------


def test_new_repos_are_to_be_looked_up_each_once_a_minute(service):
    assert len(claim(service, 2)) == 2
    assert len(claim(service)) == 1
    assert claim(service) == []
    service.conn.execute("select set_config('sync.now', (now() + '2 minutes')::text, false)")
    assert len(claim(service)) == 3


def test_what_was_resolved_is_not_looked_up_until_somebody_says_it_changed(service):
    resolve(service, 1)
    assert A not in claim(service)
    service.apply(Event(A, kind="identity"))
    assert claim(service) == [A]


def test_those_that_wait_longest_are_claimed_first(service):
    service.conn.execute(
        "update sync.repos set identity_checked_at = now() - interval '1 day' where did <> %s", [A]
    )
    assert claim(service, 1) == [A]


def test_a_claim_says_what_is_known(service):
    resolve(service, 1)
    service.apply(Event(A, kind="identity"))
    row = next(r for r in service.rows("select * from sync.claim_identities(9)") if r["did"] == A)
    assert tuple(row.values()) == (A, "a.test", PDS, "did:key:z1")


def test_a_repo_that_somebody_else_has_locked_is_skipped(service, session):
    other = session(autocommit=False)
    other.execute("select from sync.repos where did = %s for no key update", [A])
    impatient(service.conn)
    assert claim(service) == sorted([did(2), did(3)])
    assert resolve(service, 1) is False
    other.rollback()
    assert claim(service) == [A]


def test_untracked_repos_are_not_looked_up(service):
    service.conn.execute("select sync.untrack_repos(%s)", [[A]])
    assert claim(service) == sorted([did(2), did(3)])


# Storing -------------------------------------------------------------------------------------


def test_an_identity_is_stored_logged_once_and_puts_the_repo_on_its_host(service):
    start = service.position()
    assert resolve(service)
    assert resolve(service)
    row = repo(service)
    assert (row["handle"], row["pds_url"], row["signing_key"]) == ("a.test", PDS, "did:key:z1")
    assert not row["is_identity_stale"]
    assert service.value("select url from sync.hosts where host_id = %s", row["host_id"]) == PDS
    assert service.log(start) == [("identity", None, None)]
    assert service.value("select value from sync.changes where change_id > %s", start) == {
        "handle": "a.test", "pds": PDS, "active": True, "status": None
    }  # fmt: skip


def test_a_new_key_alone_is_no_news_for_readers(service):
    resolve(service)
    start = service.position()
    resolve(service, key="did:key:z2")
    assert service.log(start) == []
    assert repo(service)["signing_key"] == "did:key:z2"


def test_lanes_are_told_keys_and_hosts(service):
    resolve(service)
    assert service.rows("select * from sync.repo_identity(%s)", [A, did(9)]) == [
        {"did": A, "signing_key": "did:key:z1", "pds_url": PDS, "handle": "a.test"}
    ]


def test_an_unknown_did_is_no_repo(service):
    assert resolve(service, 9) is False


def test_a_queued_repo_moves_with_its_host(service):
    service.locate(1, 2, 3)
    assert len(service.rows("select * from sync.claim_fetches(2, 10)")) == 2
    left = service.value("select r.did from sync.fetch_queue join sync.repos r using (repo_id)")
    service.value("select sync.set_identity(%s, 'a.test', 'https://new.test', 'did:key:z1')", left)
    hosts = service.row("select q.host_id as queued, r.host_id as known from sync.fetch_queue q"
                        " join sync.repos r using (repo_id)")  # fmt: skip
    assert hosts["queued"] == hosts["known"]


def test_a_repo_that_lost_its_pds_goes_back_to_the_unknown_host(service):
    resolve(service)
    resolve(service, pds=None)
    assert (repo(service)["host_id"], repo(service)["pds_url"]) == (0, None)


# A message that failed with the old key ------------------------------------------------------


@pytest.fixture
def rejected(service):
    """Return a synchronized repo of which one message was refused."""
    resolve(service)
    service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    service.apply(Event(A, kind="rejected"))
    return service


@pytest.mark.rule("D-03", "SG-11")
@pytest.mark.scenario("A-21")
@pytest.mark.parametrize("change", [{"key": "did:key:z2"}, {"pds": "https://new.test"}])
def test_a_new_key_or_pds_makes_up_for_a_rejected_message_once(rejected, change):
    resolve(rejected, **change)
    assert rejected.state(1) == "desynchronized"
    assert repo(rejected)["rejected_at"] is None
    rejected.reconcile(rejected.claim(1), {"a": "x"}, at=10, data="t10")
    resolve(rejected, key="did:key:z3", **{k: v for k, v in change.items() if k != "key"})
    assert rejected.state(1) == "synchronized"


@pytest.mark.scenario("A-21")
def test_an_unchanged_identity_keeps_the_rejection_in_mind(rejected):
    resolve(rejected, handle="b.test")
    assert rejected.state(1) == "synchronized"
    assert repo(rejected)["rejected_at"] is not None


@pytest.mark.rule("D-03")
@pytest.mark.scenario("A-21")
@pytest.mark.parametrize(
    ("judged_by", "is_outdated"),
    [
        (" ", True),
        (f"did:key:z0 {PDS}", True),
        ("did:key:z1 https://old.test", True),
        (f"did:key:z1 {PDS}", False),
    ],
)
def test_a_message_that_was_judged_by_another_identity_than_the_stored_one_is_made_up_for(
    service, judged_by, is_outdated
):
    resolve(service)
    service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    service.apply(Event(A, kind="rejected", status=judged_by))
    assert service.state(1) == ("desynchronized" if is_outdated else "synchronized")
    assert (repo(service)["rejected_at"] is None) == is_outdated


@pytest.mark.rule("D-03")
@pytest.mark.scenario("A-21")
@pytest.mark.parametrize("learns_first", [True, False])
def test_a_message_that_fails_while_its_repo_is_fetched_is_made_up_for(service, learns_first):
    resolve(service)
    claim = service.claim(1)
    old = f"did:key:z1 {PDS}"
    if learns_first:
        resolve(service, key="did:key:z2")
        service.apply(Event(A, kind="rejected", status=old))
    else:
        service.apply(Event(A, kind="rejected", status=old))
        resolve(service, key="did:key:z2")
    assert service.state(1) == "desynchronized"
    assert service.reconcile(claim, {"a": "x"}, at=10, data="t10")["outcome"] == "superseded"
    again = service.claim(1)
    resolve(service, key="did:key:z3")
    assert service.reconcile(again, {"a": "x"}, at=10, data="t10")["outcome"] == "synchronized"


def test_a_failed_repo_is_tried_at_once_on_its_new_host(service):
    service.locate(1, 2, 3)
    claim = service.claim(1)
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'no')",
        claim.repo_id, claim.generation, claim.fetch_token,
    )  # fmt: skip
    resolve(service, pds="https://new.test")
    assert service.claim(1)


# Failing -------------------------------------------------------------------------------------


@pytest.mark.rule("IN-16", "FA-12")
def test_a_failed_lookup_keeps_the_old_document_and_is_counted(service):
    resolve(service)
    service.apply(Event(A, kind="identity"))
    claim(service)
    service.conn.execute("select sync.fail_identity(%s, 'transient')", [A])
    row = repo(service)
    assert (row["handle"], row["signing_key"], row["is_identity_stale"]) == (
        "a.test", "did:key:z1", True
    )  # fmt: skip
    noted = service.row("select reason, did, events from sync_priv.problem_deltas")
    assert tuple(noted.values()) == ("identity_transient", A, 1)
    assert claim(service) == []
    service.conn.execute("select set_config('sync.now', (now() + '2 minutes')::text, false)")
    assert A in claim(service)


@pytest.mark.rule("IN-12", "IN-11")
@pytest.mark.parametrize(
    ("name", "reason", "is_seldom"),
    [
        (A, "not_found", True),
        (A, "malformed", True),
        (A, "transient", False),
        ("did:web:gone.example.com", "transient", True),
    ],
)
def test_who_cannot_be_found_for_long_is_looked_up_seldom(session, name, reason, is_seldom):
    service = Driver(session())
    service.conn.execute("select sync.track_repos(%s)", [[name]])
    looked_up = []
    for minute in range(2, 960, 5):
        service.conn.execute(
            "select set_config('sync.now', (now() + %s * interval '1 minute')::text, false)",
            [minute],
        )
        if claim(service) == [name]:
            looked_up.append(minute)
            service.conn.execute("select sync.fail_identity(%s, %s)", [name, reason])
    assert (len(looked_up) < 60) is is_seldom
    assert max(b - a for a, b in itertools.pairwise(looked_up)) <= 60
    status = "select identity_checked_at <= sync_priv.clock() from sync.repo_status"
    assert service.value(status)
    service.apply(Event(name, kind="identity"))
    assert claim(service) == [name], "what the stream says goes before"


@pytest.mark.rule("SG-08", "IN-12")
def test_a_rejected_message_of_who_was_not_found_has_him_looked_up_within_a_minute(service):
    service.conn.execute("update sync.repos set created_at = now() - interval '1 day'")
    assert A in claim(service)
    service.conn.execute("select sync.fail_identity(%s, 'not_found')", [A])
    service.apply(Event(A, kind="rejected"))
    assert A not in claim(service), "it was looked up a moment ago"
    service.conn.execute("select set_config('sync.now', (now() + '61 seconds')::text, false)")
    assert A in claim(service)


@pytest.mark.rule("IN-16", "IN-17")
def test_an_older_lookup_that_took_longer_stores_nothing(service):
    store = "select sync.set_identity(%s, 'a.test', %s, 'did:key:z1', %s)"
    assert service.value(store, did(1), "https://new.test", "1 minute")
    assert service.value(store, did(1), "https://old.test", "1 hour"), "nothing to repeat"
    query = "select pds_url from sync.repos where did = %s"
    assert service.value(query, did(1)) == "https://new.test"
    assert service.value(store, did(1), "https://newest.test", "0 seconds")
    assert service.value(query, did(1)) == "https://newest.test"


@pytest.mark.rule("MT-07", "IN-17", "SG-08")
@pytest.mark.parametrize(
    ("kind", "key"),
    [("identity", "did:key:z1"), ("identity", "did:key:z2"), ("rejected", "did:key:z1")],
)
def test_a_lookup_that_began_before_the_last_hint_does_not_answer_it(service, kind, key):
    resolve(service, 1)
    service.conn.execute("update sync.repos set identity_as_of = now() - interval '1 hour'")
    service.apply(Event(A, kind=kind, status=f"did:key:z1 {PDS}"))
    store = "select sync.set_identity(%s, 'a.test', %s, %s, %s)"
    assert service.value(store, A, PDS, key, "1 minute")
    assert repo(service)["signing_key"] == key
    assert repo(service)["is_identity_stale"], "it was asked before"
    assert kind == "rejected" or A in claim(service), "at once"
    for _ in range(2):  # of a hint an unchanged document is looked at once more
        assert service.value(store, A, PDS, key, "0 seconds")
    assert not repo(service)["is_identity_stale"]


@pytest.mark.rule("MT-07", "CU-09")
def test_a_lookup_that_began_before_a_gap_was_found_does_not_answer_the_doubt(service):
    resolve(service, 1)
    service.conn.execute("update sync.repos set identity_as_of = now() - interval '1 hour'")
    store = "select sync.set_identity(%s, 'a.test', %s, 'did:key:z1', %s)"
    for _ in range(2):  # also of one that is in doubt already
        service.conn.execute("select sync.doubt_identities(array[%s])", [A])
    assert service.value(store, A, PDS, "1 minute")
    assert repo(service)["is_identity_stale"]
    assert service.value(store, A, PDS, "0 seconds")
    assert not repo(service)["is_identity_stale"]


@pytest.mark.rule("SG-08", "HO-01")
def test_what_was_another_key_or_pds_is_told_to_the_lanes(service):
    def told(after: int) -> list[tuple[str, str, str]]:
        rows = service.rows("select * from sync.changed_signers(%s, sync.signer_serial())", after)
        return sorted((r["did"], r["signing_key"], r["pds_url"]) for r in rows)

    resolve(service, 1)
    resolve(service, 2)
    resolve(service, 1, handle="b.test")
    assert told(0) == [], "who asked knows the first, and a handle signs nothing"
    resolve(service, 1, key="did:key:z2")
    before = service.value("select sync.signer_serial()")
    resolve(service, 2, pds="https://new.test")
    assert told(before) == [(did(2), "did:key:z1", "https://new.test")]
    assert told(0) == [(A, "did:key:z2", PDS), (did(2), "did:key:z1", "https://new.test")]


@pytest.mark.rule("SG-08")
def test_a_change_of_a_key_waits_for_no_change_of_the_filters(service, session):
    resolve(service, 1)
    app = session(autocommit=False)
    app.execute("select sync.track_repos(array['did:web:new.test'])")
    impatient(service.conn)
    assert resolve(service, 1, key="did:key:z2")
