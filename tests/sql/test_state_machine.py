"""The guards on sync.repos and sync.heads: legal transitions, generations, revs that only grow."""

import itertools

import psycopg
import pytest

from tests.sql.driver import cid, did, rev

STATES = ("pending", "fetching", "synchronized", "desynchronized", "failed")
CHART = {
    "pending": {"fetching"},
    "fetching": {"synchronized", "desynchronized", "failed", "pending"},
    "synchronized": {"desynchronized", "pending"},
    "desynchronized": {"fetching", "pending"},
    "failed": {"fetching", "desynchronized", "pending"},
}
MOVES = [(a, b) for a, b in itertools.product(STATES, STATES) if a != b]
LEGAL = [(a, b) for a, b in MOVES if b in CHART[a]]
ILLEGAL = [(a, b) for a, b in MOVES if b not in CHART[a]]


def repo(db, state: str = "pending") -> int:
    row = db.execute(
        "insert into sync.repos (did, sync_state, tracked_by, filter_generation, fetch_token,"
        " next_fetch_at, created_at, updated_at)"
        " values (%s, %s, 'did', 1, 7, now(), now(), '-infinity') returning repo_id",
        [did(1), state],
    ).fetchone()
    return row["repo_id"]


def change(db, assignment: str):
    """Update the one repo; return its row."""
    return db.execute(f"update sync.repos set {assignment} returning *").fetchone()


@pytest.mark.parametrize(("old", "new"), LEGAL, ids=[f"{a}-{b}" for a, b in LEGAL])
def test_a_legal_transition_begins_a_new_generation(db, old, new):
    repo(db, old)
    row = change(db, f"sync_state = '{new}'")
    assert (row["sync_state"], row["generation"]) == (new, 2)


@pytest.mark.rule("BF-13")
@pytest.mark.parametrize(("old", "new"), ILLEGAL, ids=[f"{a}-{b}" for a, b in ILLEGAL])
def test_an_illegal_transition_is_refused(db, old, new):
    repo(db, old)
    with pytest.raises(psycopg.Error) as refusal:
        change(db, f"sync_state = '{new}'")
    assert refusal.value.sqlstate == "SY103"
    assert str(refusal.value).startswith(f"a repo cannot go from {old} to {new}")


def test_a_state_that_is_none_is_refused(db):
    with pytest.raises(psycopg.errors.CheckViolation):
        repo(db, "fetched")


@pytest.mark.rule("BF-13")
@pytest.mark.parametrize(
    "assignment", ["is_active = false", "tracked_by = null", "filter_generation = 2"]
)
def test_what_a_running_fetch_relied_on_begins_a_new_generation(db, assignment):
    repo(db, "fetching")
    assert change(db, assignment)["generation"] == 2


@pytest.mark.parametrize(
    "assignment", ["sync_state = 'fetching'", "handle = 'a.test'", "attempts = 1", "error = 'x'"]
)
def test_anything_else_leaves_the_generation_alone(db, assignment):
    repo(db, "fetching")
    assert change(db, assignment)["generation"] == 1


def test_the_fetch_token_lives_as_long_as_the_fetch(db):
    repo(db, "fetching")
    assert change(db, "error = 'x'")["fetch_token"] == 7
    assert change(db, "sync_state = 'failed'")["fetch_token"] is None
    assert change(db, "fetch_token = 8")["fetch_token"] is None


def test_every_update_is_dated(db, clock):
    repo(db)
    clock("2026-01-02 03:04:05+00")
    assert str(change(db, "handle = 'a.test'")["updated_at"].year) == "2026"


def head(db, at: int | None, seen: int | None) -> None:
    block = None if at is None else b"commit"
    data = None if at is None else cid(at)
    db.execute(
        "insert into sync.heads (repo_id, rev, data_cid, commit_block, seen_rev)"
        " values (%s, %s, %s, %s, %s)",
        [
            repo(db),
            None if at is None else rev(at),
            data,
            block,
            None if seen is None else rev(seen),
        ],
    )


@pytest.mark.rule("CM-15", "BF-12", "MG-07", "BF-11")
@pytest.mark.parametrize("column", ["rev", "seen_rev"])
def test_a_rev_never_goes_back(db, column):
    head(db, 10, 12)
    with pytest.raises(psycopg.Error) as refusal:
        db.execute(f"update sync.heads set {column} = %s", [rev(9)])
    assert refusal.value.sqlstate == "SY104"


@pytest.mark.parametrize(("at", "seen"), [(10, 12), (11, 12), (12, 12), (13, 13)])
def test_a_rev_stays_or_grows(db, at, seen):
    head(db, 10, 12)
    db.execute("update sync.heads set rev = %s, seen_rev = %s", [rev(at), rev(seen)])


@pytest.mark.rule("D-15")
def test_a_head_may_be_forgotten_as_a_whole(db):
    head(db, 10, 12)
    db.execute(
        "update sync.heads set rev = null, data_cid = null, commit_block = null, seen_rev = null"
    )


@pytest.mark.parametrize("column", ["rev", "data_cid", "commit_block"])
def test_half_a_head_is_none(db, column):
    head(db, 10, 12)
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(f"update sync.heads set {column} = null")
