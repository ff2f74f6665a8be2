"""Views of collections: what they show, how they are called, that they go again."""

import re
from typing import Any

import psycopg
import pytest

from sync.atproto.cid import format_cid
from tests.sql.driver import LIKE, POST, cid, did
from tests.sql.lexicon_reading import SQL_TYPES, reader_of
from tests.sql.readers import Session, World
from tests.sql.views import (
    DEFS,
    FIXED,
    SCHEMAS,
    columns_of,
    create,
    kinds,
    lexicon,
    refusal,
    rows_of,
    store,
    text_lexicon,
)

LINK = format_cid(cid("x"))
BLOB = {"$type": "blob", "ref": {"$link": LINK}, "mimeType": "image/png", "size": 3}


# What a view shows ------------------------------------------------------------------------------


def test_every_type_of_a_lexicon_has_a_column_of_its_type(db: Session) -> None:
    World(db)
    given = lexicon(SCHEMAS, **DEFS)
    made = create(db, "posts", given)
    expected = {
        re.sub("([a-z])([A-Z])", r"\1_\2", name).lower(): SQL_TYPES[reader_of(schema, given)]
        for name, schema in SCHEMAS.items()
    }
    assert {name: kind for name, (kind, _) in made.items()} == expected
    assert columns_of(db, "sync_views.posts") == FIXED + sorted(expected)


def test_a_record_as_the_lexicon_says_is_shown_in_its_types(db: Session) -> None:
    World(db)
    db.execute("set local timezone = 'UTC'")
    create(db, "posts", lexicon(SCHEMAS, **DEFS))
    value = {
        "text": "é\n\"'", "created": "2026-01-31T12:00:00.123456789+02:00", "flag": False,
        "number": -(2**63), "data": {"$bytes": "AQI"}, "link": {"$link": LINK}, "image": BLOB,
        "inner": {"a": [1]}, "choice": {"$type": "x"}, "texts": ["a", ""], "flags": [True],
        "numbers": [], "objects": [{}], "local": 5, "abroad": [1, None], "loop": "x",
    }  # fmt: skip
    store(db, 0, "a", value)
    (row,) = rows_of(db)
    assert row["uri"] == f"at://{did(0)}/{POST}/a"
    assert row["cid"] == format_cid(cid(repr(value)))
    assert (row["did"], row["rkey"]) == (did(0), "a")
    assert row["created"].isoformat() == "2026-01-31T10:00:00.123456+00:00"
    assert row["data"] == b"\x01\x02"
    assert row["link"] == LINK
    same = ["text", "flag", "number", "image", "inner", "choice", "texts", "flags", "numbers"]
    assert {name: row[name] for name in same} == {name: value[name] for name in same}
    assert (row["local"], row["abroad"], row["loop"]) == (5, [1, None], "x")


@pytest.mark.parametrize("value", [None, True, 1.5, "x", "", [], {}, [[]], -1, 2**70, {"$type": 1}])
def test_a_value_of_another_type_is_null_and_no_error(db: Session, value: Any) -> None:
    World(db)
    create(db, "posts", lexicon(SCHEMAS, **DEFS))
    store(db, 0, "a", dict.fromkeys(SCHEMAS, value))
    store(db, 0, "b", b"\xa1\x61a\x61\x00")
    store(db, 0, "c", {})
    rows = rows_of(db)
    assert [row["rkey"] for row in rows] == ["a", "b", "c"]
    for row in rows[1:]:
        assert all(row[name] is None for name in row if name not in FIXED)


def test_only_the_collection_is_shown(db: Session) -> None:
    World(db)
    create(db, "posts", text_lexicon("text"))
    store(db, 0, "a", {"text": "post"})
    store(db, 0, "a", {"text": "like"}, collection=LIKE)
    assert [row["text"] for row in rows_of(db)] == ["post"]


def test_a_collection_of_which_nothing_is_stored_has_a_view_too(db: Session) -> None:
    create(db, "things", text_lexicon("text", nsid="com.example.thing"), nsid="com.example.thing")
    assert rows_of(db, "sync_views.things") == []


@pytest.mark.rule("AC-01")
def test_hidden_purged_and_taken_down_records_are_not_shown(db: Session) -> None:
    world = World(db, repos=4)
    create(db, "posts", text_lexicon("text"))
    for repo in range(4):
        store(db, repo, f"r{repo}", {"text": "x"})
    assert len(rows_of(db)) == 4
    world.take_down(0)
    world.untrack(1)
    db.execute("update sync.repos set is_active = false where did = %s", [did(2)])
    assert [row["rkey"] for row in rows_of(db)] == ["r3"]
    world.restore(0)
    assert [row["rkey"] for row in rows_of(db)] == ["r0", "r3"]
    for scope in ("", f"and r.did = '{did(0)}'"):
        with db.transaction(force_rollback=True):
            db.execute(
                f"""
                insert into sync_priv.purges (repo_id, collection_id, started_at)
                select distinct {"r.repo_id" if scope else "null::bigint"}, c.collection_id, now()
                  from sync.collections c, sync.repos r where c.nsid = '{POST}' {scope}
                """.encode()
            )
            assert [row["rkey"] for row in rows_of(db)] == (["r3"] if scope else [])


def test_a_reader_may_read_the_view_and_nothing_else(db: Session) -> None:
    World(db)
    create(db, "posts", lexicon(SCHEMAS, **DEFS))
    store(db, 0, "a", {name: {"$bytes": "AQI="} for name in SCHEMAS})
    db.execute("set local role sync_reader")
    assert len(rows_of(db)) == 1
    assert db.execute("select view from sync.list_views()").fetchall() == [
        {"view": "sync_views.posts"}
    ]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState), db.transaction():
        db.execute("delete from sync_views.posts")
    for statement in (
        "create view sync_views.mine as select 1",
        "select sync.drop_view('posts')",
        f"select sync.create_view('mine', '{POST}')",
        "select from sync.collection_views",
        "select from sync.lexicons",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
            db.execute(statement.encode())


# Its name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "place"),
    [
        ("posts", "sync_views.posts"),
        ("POSTS", "sync_views.posts"),
        ('"My ""Posts"""', 'sync_views."My ""Posts"""'),
        ("sync_views.posts", "sync_views.posts"),
        ('"' + "ü" * 31 + '"', 'sync_views."' + "ü" * 31 + '"'),
        ('"; drop table sync.repos; --"', 'sync_views."; drop table sync.repos; --"'),
    ],
)
def test_a_view_s_name_is_an_identifier(db: Session, view: str, place: str) -> None:
    create(db, view, text_lexicon("text"))
    assert rows_of(db, place) == []
    (row,) = db.execute("select view from sync.list_views()").fetchall()
    assert row["view"] == place
    db.execute("select sync.drop_view(%s)", [view])
    assert db.execute("select to_regclass(%s) as it", [place]).fetchone() == {"it": None}


@pytest.mark.parametrize(
    "view",
    [None, "", ".", "a.b.c", "a b", "1a", '"unclosed', "posts; drop table x", "posts--", '""',
     "x" * 64, '"' + "ü" * 32 + '"', "sync.mine", "sync_priv.mine", "sync_stage.mine",
     "sync_migration.mine", "sync_search.mine", "pg_catalog.mine", "pg_temp.mine",
     "information_schema.mine", "nowhere.mine"],
)  # fmt: skip
def test_what_is_no_name_for_a_view_is_refused(db: Session, view: str | None) -> None:
    assert refusal(db, view, text_lexicon("text")).sqlstate == "SY002"


@pytest.mark.parametrize(
    "nsid", [None, "", "post", "app.bsky.feed.*", "*", "a.b.c'; drop", "ä.b.c"]
)
def test_what_is_no_collection_is_refused(db: Session, nsid: str | None) -> None:
    assert refusal(db, "posts", text_lexicon("text"), nsid=nsid).sqlstate == "SY002"


@pytest.mark.parametrize(
    "thing",
    [
        "create view sync_views.posts as select 1 as x",
        "create table sync_views.posts (x int)",
        "create sequence sync_views.posts",
        "create type sync_views.posts as enum ('x')",
        "create type sync_views.posts as (x int)",
        "create domain sync_views.posts as text",
        f"select sync.create_view('posts', '{LIKE}', null, '{{\"x\": \"value\"}}')",
    ],
)
def test_a_name_that_is_taken_is_refused(db: Session, thing: str) -> None:
    World(db)
    db.execute("set local role sync_owner")
    db.execute(thing.encode())
    assert refusal(db, "posts", text_lexicon("text")).sqlstate == "SY401"


# Its end ----------------------------------------------------------------------------------------


def test_a_dropped_view_is_gone_with_what_it_asked_for(db: Session) -> None:
    create(db, "posts", text_lexicon("a"), indexed=["a"])
    db.execute("select sync.drop_view('posts')")
    assert db.execute("select * from sync.list_views()").fetchall() == []
    assert db.execute("select * from sync.index_steps()").fetchall() == []
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute("select sync.drop_view('posts')")
    assert caught.value.sqlstate == "SY401"
    assert kinds(create(db, "posts")) == {"a": "added"}


def test_a_view_that_was_dropped_by_hand_is_listed_so_and_made_again(db: Session) -> None:
    create(db, "posts", text_lexicon("a"), columns={"b": "1"})
    db.execute("set local role sync_owner")
    db.execute("drop view sync_views.posts")
    (row,) = db.execute("select is_missing from sync.list_views()").fetchall()
    assert row["is_missing"]
    assert kinds(create(db, "posts")) == {"a": "kept", "b": "kept"}
    db.execute("drop view sync_views.posts")
    other = text_lexicon("z", nsid=LIKE)
    assert kinds(create(db, "posts", other, nsid=LIKE)) == {"z": "added"}
    db.execute("drop view sync_views.posts; create table sync_views.posts (precious int)")
    db.execute("select sync.drop_view('posts')")
    assert db.execute("select * from sync_views.posts").fetchall() == []
    assert db.execute("select * from sync.list_views()").fetchall() == []
