"""create_consumer: a name, an owner, a filter, a place to start."""

import psycopg
import pytest
from psycopg.rows import DictRow

from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import World, make_reader, told

Session = psycopg.Connection[DictRow]


def test_it_belongs_to_the_role_that_made_it(db: Session) -> None:
    make_reader(db, "mine")
    db.execute("set local role sync_reader")
    make_reader(db, "apps")
    rows = db.execute("select name, owner_name from sync.consumer_status order by name").fetchall()
    assert {row["name"]: row["owner_name"] for row in rows} == {
        "apps": "sync_reader",
        "mine": db.info.user,
    }


def test_from_now_on_delivers_nothing_that_is_stored(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    reader = make_reader(db, p_start="now")
    assert reader.read() == []
    world.put(0, "b")
    assert told(reader.read()) == [("create", "b")]


def test_from_the_beginning_needs_no_log(db: Session) -> None:
    world = World(db)
    world.load(0, "a")
    world.put(0, "b")
    db.execute("delete from sync.changes")
    reader = make_reader(db)
    assert told(reader.read_all()) == [("create", "a"), ("create", "b")]


def test_dids_and_collections_that_are_not_here_yet_may_be_named(db: Session) -> None:
    reader = make_reader(db, p_dids=[did(1)], p_collections=["app.bsky.feed.*"])
    assert reader.read() == []
    world = World(db)
    world.load(0, "a")
    world.load(1, "b", collection=LIKE)
    assert told(reader.read_all()) == [("create", "b")]


@pytest.mark.parametrize(
    "pattern", ["*", "app.*", "app.bsky.feed.*", POST, "com.example.fooBar", "a-1.b.c"]
)
def test_a_pattern_is_an_nsid_a_prefix_or_a_star(db: Session, pattern: str) -> None:
    make_reader(db, p_collections=[pattern])


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"p_start": "middle"},
        {"p_start": None},
        {"p_shards": 0},
        {"p_shards": None},
        {"p_shards": 1025},
        {"p_dids": []},
        {"p_dids": ["nonsense"]},
        {"p_collections": []},
        {"p_collections": ["app.bsky.feed"], "p_dids": ["did:example:a"]},
        {"p_collections": ["app.*.post"]},
        {"p_collections": ["post"]},
        {"p_collections": [None]},
        {"p_collections": ["app.bsky.feed.post\n"]},
    ],
)
def test_a_bad_argument_is_refused(db: Session, arguments: dict[str, object]) -> None:
    options = {key: value for key, value in arguments.items() if key != "name"}
    with pytest.raises(psycopg.Error) as caught:
        make_reader(db, str(arguments.get("name", "app")), **options)
    assert caught.value.sqlstate == "SY002"


def test_a_name_is_taken_once(db: Session) -> None:
    make_reader(db)
    with pytest.raises(psycopg.Error, match="already") as caught:
        make_reader(db)
    assert caught.value.sqlstate == "SY304"
