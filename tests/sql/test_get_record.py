"""get_record: one visible record by its URI."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import POST, did
from tests.sql.readers import World

Session = psycopg.Connection[DictRow]


def found(db: Session, uri: str) -> list[str]:
    return [row["rkey"] for row in db.execute("select * from sync.get_record(%s)", [uri])]


def test_a_record_is_found_by_did_or_verified_handle(db: Session) -> None:
    World(db).load(0, "ab")
    db.execute("update sync.repos set handle = 'alice.example' where did = %s", [did(0)])
    assert found(db, f"at://{did(0)}/{POST}/b") == ["b"]
    assert found(db, f"at://alice.example/{POST}/a") == ["a"]
    assert found(db, f"at://Alice.Example/{POST}/a") == ["a"]


def test_an_unknown_record_is_no_row(db: Session) -> None:
    World(db).load(0, "a")
    for uri in (f"at://{did(0)}/{POST}/z", f"at://{did(9)}/{POST}/a", f"at://who.example/{POST}/a"):
        assert found(db, uri) == []


@pytest.mark.rule("AC-01")
def test_a_hidden_record_is_no_row(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.take_down(0)
    assert found(db, f"at://{did(0)}/{POST}/a") == []


@pytest.mark.parametrize("uri", [None, "", "at://did:web:a.example", f"https://a/{POST}/b"])
def test_anything_but_the_uri_of_a_record_is_refused(db: Session, uri: str | None) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from sync.get_record(%s)", [uri])
    assert caught.value.sqlstate == "SY002"


def test_a_handle_leads_to_the_account_that_is_shown(db: Session) -> None:
    """Handles change hands, and the row of who had it before keeps it."""
    world = World(db)
    world.load(0, "a")
    world.load(1, "b")
    db.execute("update sync.repos set handle = 'alice.example'")
    world.take_down(0)
    assert found(db, f"at://alice.example/{POST}/b") == ["b"]


def test_a_handle_is_found_by_its_index(db):
    db.execute(
        "insert into sync.repos (did, handle, tracked_by, filter_generation, next_fetch_at,"
        " created_at, updated_at)"
        " select 'did:plc:' || lpad(translate(n::text, '0189', 'abcd'), 24, 'a'),"
        " 'user' || n || '.test', 'did', 1, now(), now(), now() from generate_series(1, 20000) n"
    )
    db.execute("analyze sync.repos")
    plan = db.execute(
        "explain (costs off) select s.did from sync.repo_status s"
        " where s.handle = 'user77.test' and s.handle <> 'handle.invalid' and s.is_visible"
    ).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert "repos_handle" in text
    assert "Seq Scan on repos" not in text
