"""sync.diff_repos() and sync.reconcile_repos(): a verified export becomes the stored state."""

import psycopg
import pytest

from sync.database import connect_sync
from tests.sql.driver import LIKE, POST, Driver, Event, Op, cid, did, rev

A = did(1)


@pytest.fixture
def service(session):
    return Driver(session())


def desynchronize(service: Driver, number: int = 1) -> None:
    service.conn.execute("select sync.resync_repos(%s)", [[did(number)]])


def commit(at: int, since: int, *ops: Op) -> Event:
    return Event(A, rev=at, since=since, before=f"t{since}", data=f"t{at}", ops=ops)


@pytest.mark.rule("BF-05", "BF-06")
def test_the_reference_example_of_a_resync(service):
    """Told A=lorem, B=ipsum, A deleted, C=dolor; the refetch finds A, C and D."""
    service.load(1, {}, at=1, data="t1")
    service.apply(
        commit(2, 1, Op("create", "A", "lorem")),
        commit(3, 2, Op("create", "B", "ipsum")),
        commit(4, 3, Op("delete", "A")),
        commit(5, 4, Op("create", "C", "dolor")),
    )
    assert service.texts(1) == {"B": "ipsum", "C": "dolor"}
    service.apply(commit(9, 8, Op("update", "A", "i'm back")))
    assert service.state(1) == "desynchronized"
    start = service.position()
    export = {"A": "i'm back", "C": "dolor", "D": "amet"}
    outcome = service.reconcile(service.claim(1), export, at=9, data="t9")
    assert [outcome[k] for k in ("outcome", "created", "updated", "deleted")] == [
        "synchronized",
        2,
        0,
        1,
    ]
    assert sorted(service.log(start), key=str) == [
        ("create", "A", "i'm back"),
        ("create", "D", "amet"),
        ("delete", "B", None),
    ]
    assert service.texts(1) == export
    desynchronize(service)
    start = service.position()
    outcome = service.reconcile(service.claim(1), export, at=9, data="t9")
    assert [outcome[k] for k in ("outcome", "created", "updated", "deleted")] == [
        "synchronized",
        0,
        0,
        0,
    ]
    assert service.log(start) == []


def test_a_first_load_logs_one_snapshot_a_collection_and_no_copies(service):
    start = service.position()
    service.load(1, {"a": "x", "b": "y", (LIKE, "c"): "z"}, at=1, data="t1")
    assert service.log(start) == [("snapshot", None, None), ("snapshot", None, None)]
    assert service.value("select count(*) from sync.stored_records") == 3


def test_a_collection_that_was_empty_is_a_first_load_within_a_resync(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    start = service.position()
    outcome = service.reconcile(service.claim(1), {"a": "y", (LIKE, "c"): "z"}, at=2, data="t2")
    assert (outcome["created"], outcome["updated"], outcome["deleted"]) == (1, 1, 0)
    assert service.log(start) == [("snapshot", None, None), ("update", "a", "y")]


@pytest.mark.rule("BF-06", "MG-04")
def test_equal_cids_are_neither_rewritten_nor_logged(service):
    service.load(1, {"a": "x", "b": "y"}, at=1, data="t1")
    before = service.rows("select ctid::text, rkey from sync.stored_records order by rkey")
    desynchronize(service)
    start = service.position()
    service.reconcile(service.claim(1), {"a": "x", "b": "y"}, at=2, data="t2")
    assert service.rows("select ctid::text, rkey from sync.stored_records order by rkey") == before
    assert service.log(start) == []


@pytest.mark.rule("BF-04")
def test_an_empty_repo_is_declared_never_inferred(service):
    service.load(1, {"a": "x", "b": "y"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    outcome = service.reconcile(claim, {}, at=2, data="t2", declared=2)
    assert outcome["outcome"] == "mismatch"
    assert service.texts(1) == {"a": "x", "b": "y"}
    desynchronize(service)
    assert service.reconcile(service.claim(1), {}, at=2, data="t2")["deleted"] == 2
    assert service.texts(1) == {}


@pytest.mark.rule("BF-04")
def test_a_stage_lost_before_the_call_deletes_nothing(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    outcome = service.row(
        "select * from sync.reconcile_repos(%s, %s, %s)", [claim.repo_id], [1], [b"x" * 36]
    )
    assert outcome["outcome"] == "mismatch"
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("BF-13")
def test_a_claim_that_is_over_is_superseded(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    service.apply(Event(A, kind="account", is_active=False, status="deleted"))
    assert service.reconcile(claim, {"a": "new"}, at=2, data="t2")["outcome"] == "superseded"
    service.apply(Event(A, kind="account", is_active=True))
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("BF-13")
def test_a_claim_is_superseded_by_the_next_one_of_its_repo(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    older = service.claim(1)
    names = (older.repo_id, older.generation, older.fetch_token)
    assert service.value("select sync.release_fetch(%s, %s, %s)", *names)
    newer = service.claim(1)
    assert service.reconcile(older, {"a": "old"}, at=2, data="t2")["outcome"] == "superseded"
    assert service.reconcile(newer, {"a": "new"}, at=3, data="t3")["outcome"] == "synchronized"
    assert service.texts(1) == {"a": "new"}


def test_a_reconcile_spends_its_claim(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    assert service.reconcile(claim, {"a": "y"}, at=2, data="t2")["outcome"] == "synchronized"
    assert service.reconcile(claim, {"a": "z"}, at=3, data="t3")["outcome"] == "superseded"
    assert service.texts(1) == {"a": "y"}


@pytest.mark.rule("BF-12", "MG-07", "CA-19")
@pytest.mark.scenario("A-49")
def test_an_export_below_the_head_is_refused_and_asked_for_again_later(service):
    service.load(1, {"a": "x"}, at=5, data="t5")
    desynchronize(service)
    service.later("0 s")
    outcome = service.reconcile(service.claim(1), {"b": "old"}, at=4, data="t4")
    assert outcome["outcome"] == "stale_export"
    assert service.texts(1) == {"a": "x"}
    row = service.row("select * from sync.repos")
    assert (row["sync_state"], row["attempts"], row["error"]) == (
        "desynchronized",
        1,
        "stale_export",
    )
    assert service.value("select next_fetch_at > sync_priv.clock() from sync.repos")


@pytest.mark.rule("BF-12")
def test_another_tree_of_the_very_rev_we_have_is_refused(service):
    service.load(1, {"a": "x"}, at=5, data="t5")
    desynchronize(service)
    outcome = service.reconcile(service.claim(1), {"b": "fork"}, at=5, data="fork")
    assert outcome["outcome"] == "stale_export"
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("BF-08", "BF-10", "BF-15", "BF-03", "BF-02")
@pytest.mark.scenario("A-48")
def test_commits_held_during_a_fetch_are_applied_at_the_cut_over(service):
    service.track(1)
    claim = service.claim(1)
    held = service.apply(
        commit(9, 8, Op("create", "old", "in the export already")),
        commit(11, 10, Op("create", "c", "live"), Op("delete", "a")),
        commit(12, 11, Op("update", "c", "livelier")),
    )
    assert held == {"held": 3}
    start = service.position()
    outcome = service.reconcile(claim, {"a": "x", "old": "o"}, at=10, data="t10")
    assert outcome["outcome"] == "synchronized"
    assert service.texts(1) == {"old": "o", "c": "livelier"}
    assert service.log(start) == [
        ("snapshot", None, None),
        ("create", "c", "live"),
        ("delete", "a", None),
        ("update", "c", "livelier"),
    ]
    assert service.value("select count(*) from sync_priv.held_events") == 0
    assert service.value("select rev from sync.heads") == rev(12)


@pytest.mark.rule("BF-09", "BF-11")
def test_a_held_commit_that_does_not_chain_sends_the_repo_back(service):
    service.track(1)
    service.later("0 s")
    claim = service.claim(1)
    service.apply(commit(13, 12, Op("create", "c", "live")))
    outcome = service.reconcile(claim, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "desynchronized"
    assert service.texts(1) == {"a": "x"}
    assert service.value("select error from sync.repos") == "chain_break"
    assert service.value("select next_fetch_at > sync_priv.clock() from sync.repos")


@pytest.mark.rule("BF-11")
def test_a_head_below_a_rev_we_have_seen_is_not_synchronized(service):
    service.track(1)
    service.apply(commit(12, 11))
    outcome = service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "desynchronized"
    assert service.value("select error from sync.repos") == "stale_export"


@pytest.mark.rule("SN-09")
@pytest.mark.parametrize(
    ("at", "data", "outcome", "head"),
    [
        (10, "t10", "synchronized", 10),
        (12, "t10", "synchronized", 12),
        (12, "t12", "desynchronized", 10),
    ],
    ids=["the export", "only its rev is newer", "other contents"],
)
def test_a_sync_during_the_fetch_is_judged_after_it(service, at, data, outcome, head):
    service.track(1)
    claim = service.claim(1)
    assert service.apply(Event(A, kind="sync", rev=at, data=data)) == {"held": 1}
    assert service.reconcile(claim, {"a": "x"}, at=10, data="t10")["outcome"] == outcome
    assert service.value("select rev from sync.heads") == rev(head)
    assert service.texts(1) == {"a": "x"}


def test_a_busy_repo_is_handed_back_untouched(service, clone):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    with connect_sync(clone, name="other", autocommit=False) as other:
        other.execute("select from sync.repos for no key update")
        assert service.reconcile(claim, {"a": "y"}, at=2, data="t2")["outcome"] == "busy"
        other.rollback()
    assert service.reconcile(claim, {"a": "y"}, at=2, data="t2")["outcome"] == "synchronized"


def test_an_event_held_while_a_reconcile_finishes_is_not_stranded(service, clone):
    """The lane meets the lock of a running reconcile; nothing else comes for that repo."""
    service.load(1, {"a": "x"}, at=10, data="t10")
    desynchronize(service)
    claim = service.claim(1)
    with connect_sync(clone, name="lane", autocommit=True) as conn:
        lane = Driver(conn)
        service.token = lane.token
        with service.conn.transaction():
            service.stage_export(claim, {(POST, "a"): "x"}, at=10, data="t10")
            service.rows(
                "select * from sync.reconcile_repos(%s, %s, %s)", [claim.repo_id], [1], [cid("t10")]
            )
            assert lane.apply(commit(11, 10, Op("delete", "a"))) == {"held": 1}
        assert service.state(1) == "synchronized"
        assert lane.apply() == {"applied": 1}
    assert service.texts(1) == {}


@pytest.mark.scenario("A-52")
@pytest.mark.rule("BF-07")
def test_rows_outside_the_tracked_collections_are_left_alone(service):
    service.load(1, {"a": "x", (LIKE, "l"): "like"}, at=1, data="t1")
    service.conn.execute("select sync.track_collections(array[%s])", [POST])
    service.conn.execute("select sync.untrack_collections(array['*'])")
    service.apply()
    while service.value("select sync.maintain()"):
        pass
    desynchronize(service)
    service.apply()
    outcome = service.reconcile(service.claim(1), {(LIKE, "l"): "like"}, at=2, data="t2")
    assert (outcome["created"], outcome["deleted"]) == (0, 1)
    assert service.value("select count(*) from sync.stored_records") == 0


@pytest.mark.rule("BF-07")
def test_rows_of_a_collection_on_its_way_out_are_left_to_its_purge(service):
    service.load(1, {"a": "x", (LIKE, "l"): "like"}, at=1, data="t1")
    service.conn.execute("select sync.track_collections(array[%s])", [POST])
    service.conn.execute("select sync.untrack_collections(array['*'])")
    service.apply()
    desynchronize(service)
    start = service.position()
    outcome = service.reconcile(service.claim(1), {"a": "x"}, at=2, data="t2")
    assert (outcome["outcome"], outcome["deleted"]) == ("synchronized", 0)
    assert service.log(start) == []
    assert service.value("select count(*) from sync.stored_records") == 2


def test_missing_contents_refuse_the_whole_call(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    with pytest.raises(psycopg.Error) as refusal, service.conn.transaction():
        service.stage_export(claim, {(POST, "a"): "y"}, at=2, data="t2")
        service.rows(
            "select * from sync.reconcile_repos(%s, %s, %s)", [claim.repo_id], [1], [cid("t2")]
        )
    assert refusal.value.sqlstate == "SY201"
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("CA-11")
def test_missing_contents_refuse_the_first_load_of_a_collection(service):
    service.load(1, {"a": "x"}, at=1, data="t1")
    desynchronize(service)
    claim = service.claim(1)
    with pytest.raises(psycopg.Error) as refusal, service.conn.transaction():
        service.stage_export(claim, {(POST, "a"): "x", (LIKE, "l"): "y"}, at=2, data="t2")
        service.rows(
            "select * from sync.reconcile_repos(%s, %s, %s)", [claim.repo_id], [2], [cid("t2")]
        )
    assert refusal.value.sqlstate == "SY201"
    assert service.texts(1) == {"a": "x"}


@pytest.mark.rule("BF-14")
def test_an_interrupted_fetch_is_claimed_again_and_its_held_commits_count(service):
    service.track(1)
    old = service.claim(1)
    service.apply(commit(11, 10, Op("create", "c", "live")))
    assert service.value("select sync.recover_fetches()") == 1
    service.apply()
    assert service.value("select seen_rev from sync.heads") == rev(11)
    new = service.claim(1)
    assert service.reconcile(old, {"a": "x"}, at=10, data="t10")["outcome"] == "superseded"
    assert (
        service.reconcile(new, {"a": "x", "c": "live"}, at=11, data="t11")["outcome"]
        == "synchronized"
    )
    assert service.texts(1) == {"a": "x", "c": "live"}


@pytest.mark.scenario("A-47")
@pytest.mark.rule("BF-21")
def test_too_many_held_commits_leave_a_marker_that_forbids_synchronized(service):
    service.track(1)
    claim = service.claim(1)
    for start in range(10, 5012, 834):
        service.apply(*(commit(n + 1, n) for n in range(start, start + 834)))
    rows = service.rows("select kind, reason from sync_priv.held_events order by held_id")
    assert rows[0] == {"kind": "broken", "reason": "held_overflow"}
    assert len(rows) < 5000
    outcome = service.reconcile(claim, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "desynchronized"
