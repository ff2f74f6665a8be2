"""sync.track_repos(): a did becomes a repo that waits for its first fetch."""

import psycopg
import pytest

from tests.sql.driver import POST, Driver, Event, did
from tests.sql.waiting import background, impatient, wait_until_blocked

TRACK = "select sync.track_repos(%s) as n"


def track(db, *dids: str) -> int:
    return db.execute(TRACK, [list(dids)]).fetchone()["n"]


def test_a_new_repo_is_pending_with_an_empty_head_and_a_filter(db):
    assert track(db, did(1), did(2)) == 2
    rows = db.execute(
        "select r.did, r.sync_state, r.tracked_by, r.is_active, r.is_identity_stale,"
        " r.filter_generation, h.rev from sync.repos r join sync.heads h using (repo_id)"
        " order by r.repo_id"
    ).fetchall()
    assert [row["did"] for row in rows] == sorted([did(1), did(2)])
    assert {tuple(row.values())[1:] for row in rows} == {("pending", "did", True, True, 1, None)}
    patterns = db.execute("select kind, pattern, generation from sync.filters").fetchall()
    assert {tuple(row.values()) for row in patterns} == {
        ("collection", "*", 1), ("did", did(1), 1), ("did", did(2), 1)
    }  # fmt: skip


def test_a_did_given_twice_is_one_repo(db):
    assert track(db, did(1), did(1)) == 1


def test_tracking_again_changes_nothing(db):
    track(db, did(1))
    before = db.execute("select r.*, r.ctid::text from sync.repos r").fetchall()
    assert track(db, did(1)) == 0
    assert db.execute("select r.*, r.ctid::text from sync.repos r").fetchall() == before
    assert db.execute("select sync.filter_generation() as n").fetchone()["n"] == 1


def test_only_what_is_new_begins_a_new_generation(db):
    track(db, did(1))
    assert track(db, did(1), did(2)) == 1
    changed = db.execute("select did from sync.tracked_repos(1, 2)").fetchall()
    assert [row["did"] for row in changed] == [did(2)]


def test_collections_that_were_chosen_before_stay_the_choice(db):
    db.execute("select sync.track_collections(%s)", [[POST]])
    track(db, did(1))
    patterns = db.execute("select pattern from sync.tracked_collections()").fetchall()
    assert [row["pattern"] for row in patterns] == [POST]


@pytest.mark.rule("SX-01", "SX-02", "SX-03", "SX-04", "SX-18", "SX-19")
@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        "alice.test",
        "did:plc:short",
        "did:plc:" + "A" * 24,
        did(1) + "\n",
        did(1) + "#frag",
        "did:key:zQ3sh",
        "did:web:example.com/path",
        "did:web:" + "a" * 2050,
    ],
)
def test_a_malformed_did_is_refused_and_nothing_is_tracked(db, bad):
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        track(db, did(1), bad)
    assert refusal.value.sqlstate == "SY002"
    assert db.execute("select count(*) as n from sync.repos").fetchone()["n"] == 0


@pytest.mark.parametrize("good", ["did:web:example.com", "did:web:localhost%3A2583", did(3)])
def test_both_methods_are_taken(db, good):
    assert track(db, good) == 1


def test_tracking_wakes_the_service_and_the_log_stays_silent(session):
    service, listener = Driver(session()), session()
    listener.execute("listen sync_work")
    start = service.position()
    service.track(1)
    assert len(list(listener.notifies(timeout=60, stop_after=1))) == 1
    assert service.log(start) == []


@pytest.mark.rule("D-15")
def test_a_tombstone_comes_back_as_a_repo_that_was_never_loaded(session):
    service = Driver(session())
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.conn.execute("select sync.untrack_repos(%s)", [[did(1)]])
    service.maintain()
    assert service.value(TRACK, [did(1)]) == 1
    row = service.row("select * from sync.repos join sync.heads using (repo_id)")
    assert (row["sync_state"], row["tracked_by"], row["rev"], row["seen_rev"]) == (
        "pending", "did", None, None
    )  # fmt: skip
    assert row["is_identity_stale"]


def test_an_unsigned_import_gives_way_but_its_records_stay_for_the_diff(session):
    service = Driver(session())
    claim = service.row("select * from sync.claim_import(%s)", did(1))
    service.import_unsigned(claim, {"a": "x"}, at=10, data="t10")
    start = service.position()
    service.track(1)
    assert service.texts(1) == {"a": "x"}
    row = service.row("select * from sync.repos join sync.heads using (repo_id)")
    assert (row["sync_state"], row["rev"], row["trust"]) == ("pending", None, "verified")
    outcome = service.reconcile(service.claim(1), {"a": "x", "b": "y"}, at=9, data="t9")
    assert (outcome["outcome"], outcome["created"]) == ("synchronized", 1)
    assert service.log(start) == [("create", "b", "y")]


def test_what_upstream_said_before_nobody_listened_is_forgotten(session):
    """Else a repo that came back meanwhile would never be fetched."""
    service = Driver(session())
    service.load(1, {"a": "x"}, at=10, data="t10")
    service.apply(Event(did(1), "account", is_active=False, status="deactivated"))
    service.value("select sync.untrack_repos(%s)", [did(1)])
    service.maintain()
    assert service.apply(Event(did(1), "account", is_active=True)) == {"untracked": 1}
    service.track(1)
    row = service.row("select is_active, account_status from sync.repos")
    assert tuple(row.values()) == (True, None)
    service.reconcile(service.claim(1), {"a": "y"}, at=11, data="t11")
    assert service.texts(1) == {"a": "y"}


def test_repos_that_are_tracked_already_are_not_waited_for(session):
    service, app = Driver(session()), session(autocommit=False)
    service.track(1)
    app.execute("select sync.resync_repos(%s)", [[did(1)]])
    impatient(service.conn)
    service.track(1, 2)
    assert service.state(2) == "pending"


def test_existing_rows_are_locked_in_repo_id_order(session):
    """As everybody else does, else two of them deadlock: here dids and ids disagree."""
    service, holder, tracking = Driver(session()), session(autocommit=False), session()
    for number in (2, 1):
        service.track(number)
    service.value("select sync.untrack_repos(%s)", [did(1), did(2)])
    holder.execute("select from sync.repos where did = %s for update", [did(2)])
    call = "select sync.track_repos(%s)"
    with background(tracking, lambda: tracking.execute(call, [[did(1), did(2)]])) as tracked:
        wait_until_blocked(service.conn, tracking)
        holder.execute("set local lock_timeout = '2s'")
        holder.execute("select from sync.repos where did = %s for update", [did(1)])
        holder.commit()
        tracked.result()
