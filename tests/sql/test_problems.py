"""sync.note_problems() and the folding of its counters."""

import pytest

from tests.sql.driver import did

A = did(1)


def note(db, *problems: tuple[object, ...]) -> None:
    """Note (reason, host, did, detail, events, sample) tuples in one call."""
    db.execute(
        "select sync.note_problems(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],"
        " %s::bytea[])",
        [list(column) for column in zip(*problems, strict=True)],
    )


def totals(db):
    db.execute("select sync_priv.fold_problems()")
    return db.execute(
        "select * from sync_priv.problem_totals order by reason, host, did"
    ).fetchall()


def test_problems_are_appended_never_updated(db):
    note(
        db, ("bad_signature", "pds.test", A, "a", 1, b"x"), ("bad_frame", None, None, None, 2, None)
    )
    note(db, ("bad_signature", "pds.test", A, "b", 3, None))
    rows = db.execute(
        "select reason, host, did, events from sync_priv.problem_deltas order by delta_id"
    ).fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("bad_signature", "pds.test", A, 1),
        ("bad_frame", "", "", 2),
        ("bad_signature", "pds.test", A, 3),
    ]


def test_an_empty_note_is_none(db):
    db.execute("select sync.note_problems('{}', '{}', '{}', '{}', '{}', '{}')")
    assert totals(db) == []


def test_details_and_samples_are_bounded(db):
    note(db, ("bad_frame", None, None, "d" * 10_000, 1, b"s" * 10_000))
    (row,) = totals(db)
    assert (len(row["detail"]), len(row["sample"])) == (500, 4096)


def test_folding_adds_up_and_keeps_the_latest_sample_there_is(db, clock):
    clock("2026-01-01 00:00:00+00")
    note(db, ("bad_frame", "h", A, "first", 1, b"1"), ("bad_frame", "h", A, "second", 2, b"2"))
    clock("2026-01-02 00:00:00+00")
    note(db, ("bad_frame", "h", A, None, 4, None), ("bad_frame", "h", did(2), "x", 1, None))
    first, second = sorted(totals(db), key=lambda row: -row["events"])
    assert (first["events"], first["detail"], bytes(first["sample"])) == (7, "second", b"2")
    assert (first["first_seen_at"].day, first["last_seen_at"].day) == (1, 2)
    assert (second["did"], second["events"], second["sample"]) == (did(2), 1, None)


def test_folding_again_continues_the_totals(db, clock):
    clock("2026-01-01 00:00:00+00")
    note(db, ("bad_frame", "h", A, "old", 1, b"old"))
    totals(db)
    clock("2026-01-03 00:00:00+00")
    note(db, ("bad_frame", "h", A, "new", 5, None))
    (row,) = totals(db)
    assert (row["events"], row["detail"], bytes(row["sample"])) == (6, "new", b"old")
    assert (row["first_seen_at"].day, row["last_seen_at"].day) == (1, 3)
    assert totals(db) == [row]
    assert db.execute("select from sync_priv.problem_deltas").fetchall() == []


@pytest.mark.parametrize("count", [10_001])
def test_folding_is_bounded(db, count):
    db.execute(
        "insert into sync_priv.problem_deltas (reason, host, did, events, noted_at)"
        " select 'bad_frame', '', '', 1, now() from generate_series(1, %s)",
        [count],
    )
    assert totals(db)[0]["events"] == 10_000
    assert totals(db)[0]["events"] == count


def test_upkeep_folds(db):
    note(db, ("bad_frame", None, None, None, 1, None))
    while db.execute("select sync.maintain() as more").fetchone()["more"]:
        pass
    assert db.execute("select events from sync_priv.problem_totals").fetchone()["events"] == 1
    assert db.execute("select from sync_priv.problem_deltas").fetchall() == []
