"""sync.track_collections(): widening what is tracked leaves every repo incomplete."""

import psycopg
import pytest

from tests.sql.driver import LIKE, POST, Claim, Driver, did
from tests.sql.waiting import background, wait_until_blocked

FEED = "app.bsky.feed.*"


def track(service: Driver, *patterns: str | None) -> int:
    return service.value("select sync.track_collections(%s)", list(patterns))


@pytest.fixture
def service(session):
    service = Driver(session())
    track(service, POST)
    service.load(1, {"a": "x"}, at=10, data="t10")
    return service


@pytest.mark.rule("BF-07")
def test_widening_takes_repos_out_of_synchronized_in_the_same_transaction(service):
    assert track(service, LIKE) == 1
    row = service.row("select sync_state, filter_generation, sync.filter_generation() as now"
                      " from sync.repos")  # fmt: skip
    assert row["sync_state"] == "desynchronized"
    assert row["filter_generation"] == row["now"]
    assert service.texts(1) == {"a": "x"}


def test_a_fetch_that_ran_with_the_narrower_filter_is_refused(service):
    service.conn.execute("select sync.resync_repos(%s)", [[did(1)]])
    claim = service.claim(1)
    track(service, LIKE)
    outcome = service.reconcile(claim, {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "superseded"
    service.apply()
    new = {"a": "x", (LIKE, "l"): "like"}
    assert service.reconcile(service.claim(1), new, at=10, data="t10")["created"] == 1


@pytest.mark.parametrize("pattern", [POST, "app.bsky.feed.post"])
def test_a_pattern_that_is_tracked_already_changes_nothing(service, pattern):
    before = service.value("select sync.filter_generation()")
    assert track(service, pattern) == 0
    assert service.value("select sync.filter_generation()") == before
    assert service.state(1) == "synchronized"


def test_a_pattern_below_a_tracked_one_fetches_nothing(service):
    track(service, FEED)
    service.apply()
    export = {"a": "x", (LIKE, "l"): "like"}
    service.reconcile(service.claim(1), export, at=10, data="t10")
    assert track(service, LIKE) == 1
    assert service.state(1) == "synchronized"


def test_a_pattern_given_twice_counts_once(service):
    assert track(service, LIKE, LIKE) == 1


def test_repos_in_other_states_stay_there_and_become_due(service):
    service.track(2, 3)
    service.locate(2, 3)
    claim = service.claim(2)
    service.value(
        "select sync.fail_fetch(%s, %s, %s, 'no')",
        claim.repo_id, claim.generation, claim.fetch_token,
    )  # fmt: skip
    track(service, LIKE)
    assert [service.state(n) for n in (1, 2, 3)] == ["desynchronized", "failed", "desynchronized"]
    assert service.value("select count(*) from sync.repos where next_fetch_at > now()") == 0


@pytest.mark.parametrize("good", ["*", "com.example.*", "com.example.thing", "a.b.*", "a1.b-c.dE"])
def test_nsids_and_patterns_are_taken(db, good):
    assert db.execute("select sync.track_collections(%s) as n", [[good]]).fetchone()["n"] == 1


@pytest.mark.rule("SX-08")
@pytest.mark.parametrize(
    "bad",
    [None, "", "post", "app.*", "app.bsky", "app.bsky.feed.", "app.bsky.*.post", "**",
     "app.bsky.feed.post\n", "-a.b.c", "a.b-.c", "app.bsky.3d", "a." * 160 + "b"],
)  # fmt: skip
def test_a_malformed_pattern_is_refused_and_nothing_is_tracked(db, bad):
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        db.execute("select sync.track_collections(%s)", [[POST, bad]])
    assert refusal.value.sqlstate == "SY002"
    assert db.execute("select sync.tracked_collections()").fetchall() == []


@pytest.mark.parametrize(
    ("pattern", "nsid", "covers"),
    [
        ("*", "any.thing.atAll", True),
        ("app.bsky.feed.*", "app.bsky.feed.post", True),
        ("app.bsky.feed.*", "app.bsky.feed.sub.post", True),
        ("app.bsky.feed.*", "app.bsky.feedx.post", False),
        ("app.bsky.feed.post", "app.bsky.feed.post", True),
        ("app.bsky.feed.post", "app.bsky.feed.postgate", False),
        ("com.example.fooBar", "com.example.foobar", False),
        ("com.example.foobar", "com.example.fooBar", False),
    ],
)
@pytest.mark.rule("SX-09", "OP-06")
def test_what_a_pattern_covers(db, pattern, nsid, covers):
    db.execute("select sync.track_collections(%s)", [[pattern]])
    row = db.execute("select sync_priv.is_tracked_nsid(%s) as yes", [nsid]).fetchone()
    assert row["yes"] is covers


def test_only_tracked_nsids_get_an_id(service):
    service.conn.execute("select sync.intern_collections(%s, %s)", [[1, 1], [LIKE, POST]])
    assert service.rows("select nsid from sync.collections") == [{"nsid": POST}]
    track(service, LIKE)
    for _ in range(2):
        service.conn.execute("select sync.intern_collections(%s, %s)", [[1, 1], [LIKE, LIKE]])
    assert service.value("select count(*) from sync.collections where nsid = %s", LIKE) == 1


def test_a_pattern_whose_cover_is_taken_away_meanwhile_is_wider(service, session):
    """Else the records that the other transaction purges would never be fetched again."""
    track(service, "*")
    service.apply()
    service.reconcile(service.claim(1), {"a": "x"}, at=10, data="t10")
    other, waiting = session(autocommit=False), session()
    other.execute("select sync.untrack_collections(%s)", [["*", POST]])
    pattern = [[FEED]]
    with background(
        waiting, lambda: waiting.execute("select sync.track_collections(%s)", pattern)
    ) as tracked:
        wait_until_blocked(service.conn, waiting)
        other.commit()
        tracked.result()
    assert service.state(1) == "desynchronized"


def test_widening_ends_an_import_that_runs(service):
    """Of the new collection it may bring what a purge is about to delete."""
    claimed = service.row("select * from sync.claim_import(%s)", did(2))
    track(service, LIKE)
    outcome = service.reconcile(Claim(**claimed), {"a": "x"}, at=10, data="t10")
    assert outcome["outcome"] == "superseded"
    assert service.state(2) == "desynchronized"
