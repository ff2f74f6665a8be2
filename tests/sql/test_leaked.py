"""sync_priv.leaked(): what is left in a bucket."""

import pytest


@pytest.mark.parametrize(
    ("filled", "ago", "left"),
    [
        (5, "0 s", 5),
        (5, "59 s", 5),
        (5, "60 s", 4),
        (5, "5 minutes", 0),
        (5, "1 year", 0),
        (99, "0 s", 20),
        (0, "1 hour", 0),
        (5, "-1 hour", 20),
    ],
)
def test_a_bucket_loses_one_each_interval_and_holds_no_more_than_its_size(
    db, clock, filled, ago, left
):
    clock("2026-01-02 03:04:05+00")
    row = db.execute(
        "select sync_priv.leaked(%s, sync_priv.clock() - %s::interval, '1 minute', 20) as left",
        [filled, ago],
    ).fetchone()
    assert row["left"] == left


def test_a_bucket_that_was_never_filled_is_empty(db):
    row = db.execute("select sync_priv.leaked(7, '-infinity', '1 minute', 20) as left").fetchone()
    assert row["left"] == 0
