"""sync.records: the records of visible accounts, and no others."""

import psycopg
import pytest
from psycopg.rows import DictRow

from sync.atproto.cid import format_cid
from tests.sql.driver import LIKE, POST, cid, did
from tests.sql.readers import World

Session = psycopg.Connection[DictRow]


def rkeys(db: Session) -> list[tuple[str, str]]:
    rows = db.execute("select did, rkey from sync.records order by 1, 2").fetchall()
    return [(row["did"], row["rkey"]) for row in rows]


@pytest.mark.rule("SX-14")
def test_a_record_shows_with_its_uri_and_cid_as_text(db: Session) -> None:
    World(db).load(0, ["3kaaa"])
    (row,) = db.execute("select * from sync.records").fetchall()
    assert row["uri"] == f"at://{did(0)}/{POST}/3kaaa"
    assert row["cid"] == format_cid(cid(1))
    assert row["value"] == {}
    assert list(row) == [
        "did", "handle", "collection", "rkey", "uri", "cid", "rev", "value", "raw", "reason",
        "indexed_at",
    ]  # fmt: skip


@pytest.mark.rule("AC-01", "AC-04", "AC-08")
def test_only_active_accounts_show(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.load(1, "b")
    db.execute("update sync.repos set is_active = false where did = %s", [did(0)])
    assert rkeys(db) == [(did(1), "b")]
    db.execute(
        "update sync.repos set is_active = true, account_status = 'throttled' where did = %s",
        [did(0)],
    )
    assert rkeys(db) == [(did(0), "a"), (did(1), "b")]


def test_a_repo_that_was_taken_down_here_does_not_show(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.take_down(0)
    assert rkeys(db) == []
    db.execute("update sync.repos set local_status = 'throttled'")
    assert rkeys(db) == [(did(0), "a")]


def test_an_untracked_repo_does_not_show(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.untrack(0)
    assert rkeys(db) == []


@pytest.mark.parametrize(
    ("repo", "collection", "shown"),
    [
        (0, None, [(did(1), "c"), (did(1), "d")]),
        (None, POST, [(did(0), "b"), (did(1), "d")]),
        (0, POST, [(did(0), "b"), (did(1), "c"), (did(1), "d")]),
    ],
)
def test_what_is_being_purged_does_not_show(
    db: Session, repo: int | None, collection: str | None, shown: list[tuple[str, str]]
) -> None:
    world = World(db)
    world.load(0, "a")
    world.load(0, "b", collection=LIKE)
    world.load(1, "c")
    world.load(1, "d", collection=LIKE)
    db.execute(
        """
        insert into sync_priv.purges (repo_id, collection_id, started_at)
        values ((select repo_id from sync.repos where did = %s),
                (select collection_id from sync.collections where nsid = %s), now())
        """,
        [None if repo is None else did(repo), collection],
    )
    assert rkeys(db) == shown


def test_conditions_on_the_key_reach_the_primary_key(db: Session) -> None:
    """Through the security barrier: these comparisons leak nothing."""
    World(db).load(0, "a")
    db.execute("set local enable_seqscan = off")
    plan = db.execute(
        f"explain select * from sync.records where did = '{did(0)}' "
        f"and collection = '{POST}' and rkey = 'a'".encode()
    ).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    (condition,) = [line for line in text.splitlines() if "rkey = 'a'" in line]
    assert "Index Cond" in condition
    assert "repo_id = " in condition
