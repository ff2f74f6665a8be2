"""Sources and lanes: add, pause, rewind, remove, stop, and taking a lane over."""

import psycopg
import pytest

from tests.sql.driver import Driver
from tests.sql.waiting import PATIENCE_S, background, wait_until_blocked

URL = "wss://relay.test"


def one(db, query: str, *args):
    return next(iter(db.execute(query, args).fetchone().values()))


def enabled(db) -> list[str]:
    return [row["url"] for row in db.execute("select * from sync.enabled_sources()").fetchall()]


@pytest.fixture
def source(db) -> int:
    return one(db, "select sync.add_source(%s)", URL)


def test_sources_are_read_in_the_order_they_were_added(db):
    one(db, "select sync.add_source('wss://z.test')")
    one(db, "select sync.add_source('ws://a.test:2583', 'pds')")
    rows = db.execute("select url, kind from sync.enabled_sources()").fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("wss://z.test", "relay"), ("ws://a.test:2583", "pds")
    ]  # fmt: skip


def test_adding_again_keeps_the_source_and_starts_it(db, source):
    assert one(db, "select sync.pause_source(%s)", URL)
    assert enabled(db) == []
    assert one(db, "select sync.add_source(%s, 'pds')", URL) == source
    assert enabled(db) == [URL]
    assert one(db, "select kind from sync.sources") == "pds"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://relay.test", "relay"),
        ("wss://", "relay"),
        ("wss://relay.test/xrpc", "relay"),
        ("wss://relay.test?cursor=1", "relay"),
        ("wss://relay .test", "relay"),
        (" wss://relay.test", "relay"),
        ("wss://relay.test\n", "relay"),
        (URL, "jetstream"),
        (None, "relay"),
        (URL, None),
    ],
)
def test_a_malformed_source_is_refused(db, url, kind):
    with pytest.raises(psycopg.Error) as refusal:
        db.execute("select sync.add_source(%s, %s)", [url, kind])
    assert refusal.value.sqlstate == "SY002"


def test_pausing_says_if_there_was_anything_to_pause(db, source):
    assert one(db, "select sync.pause_source(%s)", URL)
    assert not one(db, "select sync.pause_source(%s)", URL)
    assert not one(db, "select sync.pause_source('wss://other.test')")


@pytest.mark.rule("D-14")
def test_a_stopped_source_says_why_until_it_is_added_again(db, source):
    db.execute("select sync.stop_source(%s, 'FutureCursor')", [source])
    assert enabled(db) == []
    assert one(db, "select error from sync.sources") == "FutureCursor"
    one(db, "select sync.add_source(%s)", URL)
    assert one(db, "select error from sync.sources") is None


# Lanes ---------------------------------------------------------------------------------------


def apply(db, source: int, token: int, cursor: int | None) -> None:
    db.execute("select sync.open_stage()")
    db.execute("select * from sync.apply_events(%s, 0, %s, %s, 0)", [source, token, cursor])


def claim(db, source: int):
    return db.execute("select * from sync.claim_lane(%s)", [source]).fetchone()


@pytest.mark.rule("D-13")
def test_a_lane_starts_without_a_cursor_and_finds_its_own_again(db, source):
    lane = claim(db, source)
    assert lane["seq"] is None
    apply(db, source, lane["token"], 41)
    assert claim(db, source)["seq"] == 41


@pytest.mark.rule("D-13", "CU-04")
def test_a_cursor_moves_forwards_only_and_an_idle_tick_leaves_it(db, source):
    token = claim(db, source)["token"]
    apply(db, source, token, 41)
    apply(db, source, token, 40)
    apply(db, source, token, None)
    assert claim(db, source)["seq"] == 41


@pytest.mark.rule("CU-12")
def test_a_cursor_is_that_of_one_source_and_no_other(db, source):
    first = claim(db, source)
    apply(db, source, first["token"], 41)
    other = one(db, "select sync.add_source('wss://other.test')")
    second = claim(db, other)
    assert second["seq"] is None
    apply(db, other, second["token"], 7)
    apply(db, source, first["token"], 42)
    seqs = db.execute("select seq from sync.source_status order by source_id").fetchall()
    assert [row["seq"] for row in seqs] == [42, 7]


def test_taking_a_lane_over_fences_its_former_holder_off(db, source):
    old = claim(db, source)["token"]
    new = claim(db, source)["token"]
    assert new > old
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        apply(db, source, old, 50)
    assert refusal.value.sqlstate == "SY101"
    apply(db, source, new, 50)


@pytest.mark.rule("D-14")
def test_rewinding_lowers_the_cursor_and_fences_the_running_lane_off(db, source):
    token = claim(db, source)["token"]
    apply(db, source, token, 50)
    assert one(db, "select sync.rewind_source(%s, 7)", URL)
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        apply(db, source, token, 51)
    assert refusal.value.sqlstate == "SY101"
    assert claim(db, source)["seq"] == 7


def test_a_source_that_was_never_read_has_nothing_to_rewind(db, source):
    assert not one(db, "select sync.rewind_source(%s, 7)", URL)
    assert not one(db, "select sync.rewind_source('wss://other.test', 7)")


@pytest.mark.parametrize("seq", [-1, None])
def test_a_cursor_below_zero_is_refused(db, source, seq):
    with pytest.raises(psycopg.Error) as refusal:
        db.execute("select sync.rewind_source(%s, %s::bigint)", [URL, seq])
    assert refusal.value.sqlstate == "SY002"


@pytest.mark.rule("CU-12")
def test_removing_forgets_the_cursor_and_fences_the_running_lane_off(db, source):
    token = claim(db, source)["token"]
    apply(db, source, token, 50)
    assert one(db, "select sync.remove_source(%s)", URL)
    assert not one(db, "select sync.remove_source(%s)", URL)
    with pytest.raises(psycopg.Error) as refusal, db.transaction():
        apply(db, source, token, 51)
    assert refusal.value.sqlstate == "SY101"
    again = one(db, "select sync.add_source(%s)", URL)
    assert claim(db, again)["seq"] is None


@pytest.mark.rule("CU-09", "CU-18")
def test_a_gap_outlives_the_source_that_had_it(db, source):
    """Another one is read, and knows nothing of what was lost."""
    other = one(db, "select sync.add_source('wss://other.test')")
    db.execute("select sync.note_gap(%s)", [source])
    assert one(db, "select sync.remove_source('wss://relay.test')")
    assert [row["source_id"] for row in db.execute("select * from sync.open_gaps()")] == [other]


@pytest.mark.rule("CU-10", "CU-09", "D-14")
def test_a_source_that_lost_its_history_has_lost_events_too(db, source):
    """Those between our cursor and the end of what it had are in no stream any more."""
    db.execute("select sync.stop_source(%s, 'FutureCursor: Cursor in the future.')", [source])
    assert [row["source_id"] for row in db.execute("select * from sync.open_gaps()")] == [source]


def test_a_lane_that_is_being_written_is_taken_over_when_the_writer_is_done(session):
    """No half batch: the successor's cursor holds what its predecessor committed."""
    service, successor = Driver(session()), session()
    with service.conn.transaction():
        service.rows(
            "select * from sync.apply_events(%s, 0, %s, 99, 0)", service.source_id, service.token
        )
        successor.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            successor.execute("select * from sync.claim_lane(%s)", [service.source_id])
    assert claim(successor, service.source_id)["seq"] == 99


APPLY = "select * from sync.apply_events(%s, 0, %s, 99, 0)"


def test_a_claim_that_waited_for_a_batch_has_its_cursor_and_fences(session):
    service, successor, observer = Driver(session()), session(), session()
    service.conn.autocommit = False
    service.rows(APPLY, service.source_id, service.token)
    with background(successor, lambda: claim(successor, service.source_id)) as claiming:
        wait_until_blocked(observer, successor)
        service.conn.commit()
        assert claiming.result(PATIENCE_S)["seq"] == 99
    with pytest.raises(psycopg.Error) as refusal:
        service.rows(APPLY, service.source_id, service.token)
    assert refusal.value.sqlstate == "SY101"
    service.conn.rollback()
    assert service.value("select count(*) from sync.cursors") == 1


def test_a_batch_that_waited_for_a_claim_is_fenced_off(session):
    service, successor, observer = Driver(session()), session(autocommit=False), session()
    claim(successor, service.source_id)

    def apply_late() -> str | None:
        with pytest.raises(psycopg.Error) as refusal, service.conn.transaction():
            service.rows(APPLY, service.source_id, service.token)
        return refusal.value.sqlstate

    with background(service.conn, apply_late) as batch:
        wait_until_blocked(observer, service.conn)
        successor.commit()
        assert batch.result(PATIENCE_S) == "SY101"


def test_two_who_claim_a_new_lane_at_once_share_one_cursor(session):
    first, second, observer = session(autocommit=False), session(), session()
    source = one(observer, "select sync.add_source(%s)", URL)
    early = claim(first, source)
    with background(second, lambda: claim(second, source)) as claiming:
        wait_until_blocked(observer, second)
        first.commit()
        assert claiming.result(PATIENCE_S)["token"] > early["token"]
    assert one(observer, "select count(*) from sync.cursors") == 1


def test_every_lane_is_found_by_its_newest_version(db, source):
    for lane, epoch in ((0, 1), (1, 1), (1, 2), (4, 1)):
        db.execute(
            "insert into sync.cursors (source_id, lane, lane_epoch, token, updated_at, version)"
            " values (%s, %s, %s, 1, sync_priv.clock(), 7)",
            [source, lane, epoch],
        )
    rows = db.execute("select lane, lane_epoch from sync_priv.lanes").fetchall()
    assert [(row["lane"], row["lane_epoch"]) for row in rows] == [(4, 1), (1, 2), (1, 1), (0, 1)]


def test_a_source_is_rewound_but_never_moved_ahead(db, source):
    lane = claim(db, source)
    assert one(db, "select sync_priv.move_cursor(%s, 0, %s, 100, 1)", source, lane["token"])
    assert one(db, "select sync.rewind_source(%s, 40)", URL)
    assert one(db, "select seq from sync.source_status") == 40
    with pytest.raises(psycopg.Error) as refusal:
        one(db, "select sync.rewind_source(%s, 41)", URL)
    assert refusal.value.sqlstate == "SY002"
