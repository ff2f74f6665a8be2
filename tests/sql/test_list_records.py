"""list_records: a collection newest first, page by page."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import World

Session = psycopg.Connection[DictRow]


def pages(db: Session, nsid: str, limit: int) -> list[list[str]]:
    result: list[list[str]] = []
    before: str | None = None
    while True:
        rows = db.execute(
            "select * from sync.list_records(%s, %s, %s)", [nsid, before, limit]
        ).fetchall()
        if not rows:
            return result
        result.append([row["rkey"] for row in rows])
        before = rows[-1]["cursor"]


def age(db: Session, rkey: str, minutes: int) -> None:
    db.execute(
        "update sync.stored_records set indexed_at = '2026-01-01'::timestamptz "
        "- %s * interval '1 minute 1 microsecond' where rkey = %s",
        [minutes, rkey],
    )


def test_the_newest_comes_first(db: Session) -> None:
    world = World(db)
    world.load(0, "abc")
    world.load(1, "d")
    world.load(1, "x", collection=LIKE)
    for minutes, rkey in enumerate("bdac"):
        age(db, rkey, minutes)
    assert pages(db, POST, 10) == [["b", "d", "a", "c"]]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_skip_and_repeat_nothing_when_all_are_equally_old(db: Session, limit: int) -> None:
    world = World(db)
    world.load(0, "abc")
    world.load(1, "def")
    assert "".join("".join(page) for page in pages(db, POST, limit)) == "fedcba"


@pytest.mark.rule("AC-01")
def test_hidden_and_purged_records_are_left_out(db: Session) -> None:
    world = World(db, repos=3)
    for repo, rkey in enumerate("abc"):
        world.load(repo, rkey)
    world.take_down(0)
    world.untrack(1)
    assert pages(db, POST, 10) == [["c"]]
    db.execute(
        "insert into sync_priv.purges (collection_id, started_at) "
        "select collection_id, now() from sync.collections where nsid = %s",
        [POST],
    )
    assert pages(db, POST, 10) == []


def test_an_unknown_collection_is_empty(db: Session) -> None:
    assert pages(db, "com.example.none", 5) == []


def test_it_says_when_there_is_no_index_for_it(db: Session) -> None:
    World(db).load(0, "a")
    heard: list[str] = []
    db.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    pages(db, POST, 10)
    assert heard
    assert POST in heard[0]
    heard.clear()
    row = db.execute("select collection_id as id from sync.collections where nsid = %s", [POST])
    number = row.fetchall()[0]["id"]
    db.execute("set local role sync_owner")
    db.execute(
        f"create index on sync.stored_records (indexed_at desc) "
        f"where collection_id = {number}".encode()
    )
    pages(db, POST, 10)
    assert heard == []


@pytest.mark.parametrize(
    "arguments", [[POST, "nonsense", 5], [POST, None, 0], [POST, None, None], [POST, "1.2", 5]]
)
def test_a_bad_argument_is_refused(db: Session, arguments: list[object]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from sync.list_records(%s, %s, %s)", arguments)
    assert caught.value.sqlstate == "SY002"


def test_a_did_s_records_carry_their_handle(db: Session) -> None:
    World(db).load(0, "a")
    db.execute("update sync.repos set handle = 'alice.example'")
    (row,) = db.execute("select * from sync.list_records(%s)", [POST]).fetchall()
    assert (row["did"], row["handle"]) == (did(0), "alice.example")
