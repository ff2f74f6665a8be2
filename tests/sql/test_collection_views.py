"""Views of collections: what they show, how they are named, what is refused."""

import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from sync.atproto.cid import format_cid
from tests.sql.driver import LIKE, POST, cid, did
from tests.sql.lexicon_reading import SQL_TYPES, reader_of
from tests.sql.readers import Session, World
from tests.sql.views import (
    FIXED,
    columns_of,
    create,
    lexicon,
    refusal,
    store,
    text_lexicon,
)

LINK = format_cid(cid("x"))
BLOB = {"$type": "blob", "ref": {"$link": LINK}, "mimeType": "image/png", "size": 3}
SCHEMAS: dict[str, Any] = {
    "text": {"type": "string"},
    "handle": {"type": "string", "format": "handle"},
    "created": {"type": "string", "format": "datetime"},
    "aToken": {"type": "token"},
    "flag": {"type": "boolean"},
    "number": {"type": "integer"},
    "data": {"type": "bytes"},
    "link": {"type": "cid-link"},
    "image": {"type": "blob"},
    "inner": {"type": "object", "properties": {}},
    "choice": {"type": "union", "refs": ["#one"]},
    "whatever": {"type": "unknown"},
    "nothing": {"type": "null"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "flags": {"type": "array", "items": {"type": "boolean"}},
    "numbers": {"type": "array", "items": {"type": "integer"}},
    "objects": {"type": "array", "items": {"type": "ref", "ref": "#one"}},
    "bare": {"type": "array"},
    "local": {"type": "ref", "ref": "#number"},
    "whole": {"type": "ref", "ref": f"{POST}#created"},
    "twice": {"type": "ref", "ref": "#again"},
    "abroad": {"type": "ref", "ref": "com.example.other#thing"},
    "loop": {"type": "ref", "ref": "#loop"},
    "ring": {"type": "ref", "ref": "#there"},
    "gone": {"type": "ref", "ref": "#missing"},
    "unheard": {"type": "quaternion"},
    "untyped": {},
    "noSchema": 5,
    "odd": {"type": ["string"]},
}
DEFS: dict[str, Any] = {
    "one": {"type": "object", "properties": {}},
    "number": {"type": "integer"},
    "created": {"type": "string", "format": "datetime"},
    "again": {"type": "ref", "ref": "#number"},
    "loop": {"type": "ref", "ref": "#loop"},
    "there": {"type": "ref", "ref": "#back"},
    "back": {"type": "ref", "ref": "#there"},
}


def rows_of(db: Session, view: str = "sync_views.posts") -> list[dict[str, Any]]:
    return db.execute(f"select * from {view} order by did, rkey".encode()).fetchall()


def kinds(changes: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: change for name, (_, change) in changes.items()}


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


# Names ------------------------------------------------------------------------------------------

HOSTILE = {
    '"; drop table sync.repos; --': '"; drop table sync.repos; --',
    "": "value_",
    "a" * 80: "a" * 63,
    "ü" * 40: "ü" * 31,
    "x" + "ü" * 40: "x" + "ü" * 31,
    "fooBar": "foo_bar",
    "foo_bar": "foo_bar_2",
    "Foo_Bar": "foo_bar_3",
    "HTTPServer": "httpserver",
    "did": "value_did",
    "rkey": "value_rkey",
    "uri": "value_uri",
    "cid": "value_cid",
    "indexedAt": "value_indexed_at",
    "value": "value",
    "valueDid": "value_did_2",
    "ctid": "ctid",
    "tableoid": "tableoid",
    "xmin": "xmin",
    "select": "select",
    "s.raw": "s.raw",
    "%I %s %1$s": "%i %s %1$s",
    "a\\'b": "a\\'b",
    "new\nline": "new\nline",
    "y" * 900_000: "y" * 63,
    "$type": "$type",
    "😀": "😀",
    "ÄÖ": "ÄÖ",
}


def test_hostile_property_names_become_column_names(db: Session) -> None:
    World(db)
    made = create(db, "posts", text_lexicon(*HOSTILE))
    store(db, 0, "a", {name: f"of {name}" for name in HOSTILE})
    (row,) = rows_of(db)
    by_property = {value.removeprefix("of "): name for name, value in row.items()
                   if name not in FIXED}  # fmt: skip
    # Which of several gets the bare name follows their order.
    order = sorted(HOSTILE, key=str.encode)
    assert list(made) == [by_property[name] for name in order]
    assert all(len(name.encode()) <= 63 for name in made)
    assert by_property["Foo_Bar"] == "foo_bar"
    loose = {"fooBar", "foo_bar", "Foo_Bar"}
    assert {by_property[name] for name in loose} == {"foo_bar", "foo_bar_2", "foo_bar_3"}
    for name, column in HOSTILE.items():
        assert name in loose or by_property[name] == column


def test_many_names_that_are_cut_to_the_same_are_numbered(db: Session) -> None:
    World(db)
    made = create(db, "posts", text_lexicon(*("ü" * 40 + f"{n:03}" for n in range(120))))
    assert len(made) == 120
    assert all(len(name.encode()) <= 63 for name in made)
    assert {"ü" * 31, "ü" * 30 + "_2", "ü" * 29 + "_100"} < set(made)


def test_as_many_names_as_there_can_be_may_be_cut_to_the_same(db: Session) -> None:
    World(db)
    given = lexicon({"x" * 80 + f"{n:04}": {"type": "ref", "ref": "#d"} for n in range(1500)},
                    d={"type": "ref", "ref": "#d"})  # fmt: skip
    assert "x" * 58 + "_1500" in create(db, "posts", given)


def test_indexes_of_hostile_names_can_be_built(db: Session) -> None:
    World(db)
    names = [column for column in HOSTILE.values() if "foo" not in column]
    create(db, "posts", text_lexicon(*HOSTILE), indexed=names)
    steps = db.execute("select * from sync.index_steps()").fetchall()
    assert len(steps) == 2 * len(set(names)) + 1  # an index and statistics of each
    for step in steps:
        db.execute(step["statement"].replace(" concurrently", "").encode())
    store(db, 0, "a", dict.fromkeys(HOSTILE, "x"))
    assert db.execute("select * from sync.index_steps()").fetchall() == []


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
     "sync_migration.mine", "pg_catalog.mine", "pg_temp.mine", "information_schema.mine",
     "nowhere.mine"],
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


# Lexicons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        None, 5, "x", [], {}, {"id": POST}, {"id": POST, "defs": {}},
        {"id": POST, "defs": {"main": {"type": "query"}}},
        {"id": POST, "defs": {"main": {"type": "record", "record": {"properties": []}}}},
        {"id": POST, "defs": {"main": {"type": "object", "record": {"properties": {}}}}},
        text_lexicon("text", nsid=LIKE),
        {**text_lexicon("text"), "id": None},
        lexicon({f"p{n}": {} for n in range(1501)}),
    ],
)  # fmt: skip
def test_what_is_no_lexicon_of_the_collection_is_refused(db: Session, given: Any) -> None:
    World(db)
    assert refusal(db, "posts", given).sqlstate == "SY002"
    assert db.execute("select from sync.lexicons").fetchall() == []


def test_a_lexicon_may_have_as_many_properties_as_a_view_columns(db: Session) -> None:
    World(db)
    assert len(create(db, "posts", lexicon({f"p{n}": {} for n in range(1500)}))) == 1500
    assert refusal(db, "posts", columns={"one": "1"}).sqlstate == "SY002"
    store(db, 0, "a", {"p7": 7})
    assert rows_of(db)[0]["p7"] == 7


def test_a_lexicon_that_is_kept_serves_the_next_view(db: Session) -> None:
    create(db, "posts", text_lexicon("text"))
    assert create(db, "again") == {"text": ("text", "added")}


def test_a_lexicon_with_a_deep_ring_of_references_is_json(db: Session) -> None:
    chain: dict[str, Any] = {f"d{n}": {"type": "ref", "ref": f"#d{n + 1}"} for n in range(100)}
    given = lexicon({"x": {"type": "ref", "ref": "#d0"}}, **chain, d100={"type": "string"})
    assert create(db, "posts", given) == {"x": ("jsonb", "added")}


# Given columns ----------------------------------------------------------------------------------


def test_given_expressions_are_columns(db: Session) -> None:
    World(db)
    made = create(
        db,
        "posts",
        columns={
            "text": "value ->> 'text'",
            "length": "length(value->>'text') -- so long",
            "liked": "(select 1 + (value->>'n')::int)",
            "Has ) it": "value ? ')' /* ( */",
            "revision": "rev",
            "bytes": "raw",
            "list": "array[1, 2]",
            "nothing": "null",
        },
    )
    assert made["length"] == ("integer", "added")
    assert made["list"] == ("integer[]", "added")
    assert made["nothing"] == ("text", "added")
    store(db, 0, "a", {"text": "four", "n": 1, ")": 1})
    (row,) = rows_of(db)
    assert (row["text"], row["length"], row["liked"], row["Has ) it"]) == ("four", 4, 2, True)
    assert row["revision"] == "3kaaaaaaaaaaa"


def test_a_given_column_goes_before_a_property_of_its_name_and_stays_there(db: Session) -> None:
    World(db)
    given = {"text": "upper(value ->> 'text')"}
    create(db, "posts", text_lexicon("text", "other"), columns=given)
    store(db, 0, "a", {"text": "x"})
    assert rows_of(db)[0]["text"] == "X"
    again = {"text": ("text", "kept"), "other": ("text", "kept")}
    assert create(db, "posts", text_lexicon("text", "other")) == again
    assert create(db, "posts") == again
    assert create(db, "posts", text_lexicon("text", "other"), columns={}) == {
        "text": ("text", "changed"),
        "other": ("text", "kept"),
    }
    assert rows_of(db)[0]["text"] == "x"


@pytest.mark.parametrize(
    "expression",
    [
        "1) from x; drop table y; --",
        "1; select 2",
        "1; drop table sync.repos",
        "1), (2",
        "1) + (1",
        "1], array[2",
        "(1",
        "1)",
        "",
        " ",
        "-- nothing",
        "/* open",
        "1 /* open",
        "'open",
        '"open',
        "$$ open",
        "1, 2",
        "*",
        "s.*",
        "s",
        "value as x",
        "distinct 1",
        "1 order by 1",
        "variadic array[1]",
        "select 1",
        "count(*)",
        "row_number() over ()",
        "generate_series(1, 3)",
        "jsonb_array_elements(value)",
        "row(1, 2)",
        "(1, 2)",
        "(select 1, 2)",
        "(select 1 union select 2) from x",
        "(with gone as (delete from sync.repos returning 1) select 1)",
        "r.value",
        "s.value",
        "did",
        "s.repo_id",
        "v.handle",
        "nothing",
        "no_such_function(value)",
        "no_schema.f(value)",
        "no.such.database.f(value)",
        "value ->> 'a'::int",
        "1 / 0",
        "$1",
        "%s",
        "default",
        "current of c",
        "\\",
        "(" * 20_000 + "1" + ")" * 20_000,
    ],
)
def test_what_is_no_expression_over_a_record_is_refused(db: Session, expression: str) -> None:
    World(db)
    said = refusal(db, "posts", columns={"x": expression})
    assert said.sqlstate == "SY002"
    assert db.execute("select count(*) > 0 as yes from sync.repos").fetchone() == {"yes": True}


@pytest.mark.parametrize(
    "columns",
    [[], 5, "x", {"x": 5}, {"x": None}, {"x": ["1"]}, {"": "1"}, {"x" * 64: "1"},
     {"ü" * 32: "1"}, *({name: "1"} for name in FIXED)],
)  # fmt: skip
def test_columns_that_cannot_be_given_are_refused(db: Session, columns: Any) -> None:
    assert refusal(db, "posts", columns=columns).sqlstate == "SY002"


def test_a_given_column_may_have_a_hostile_name(db: Session) -> None:
    names = ['"; drop table sync.repos; --', "a\nb", "%I", "ctid", "ü" * 31]
    assert set(create(db, "posts", columns=dict.fromkeys(names, "1"))) == set(names)


def test_without_lexicon_and_columns_there_is_no_view(db: Session) -> None:
    assert refusal(db, "posts").sqlstate == "SY002"
    assert db.execute("select to_regclass('sync_views.posts') as it").fetchone() == {"it": None}


# Evolution --------------------------------------------------------------------------------------


def test_a_changed_lexicon_changes_the_view_and_names_and_places_stay(db: Session) -> None:
    World(db)
    create(db, "posts", text_lexicon("b", "fooBar"))
    made = create(db, "posts", text_lexicon("a", "b", "foo_bar", "fooBar"))
    assert kinds(made) == {"b": "kept", "foo_bar": "kept", "a": "added", "foo_bar_2": "added"}
    assert columns_of(db, "sync_views.posts") == [*FIXED, "b", "foo_bar", "a", "foo_bar_2"]
    store(db, 0, "a", {"fooBar": "first", "foo_bar": "second"})
    (row,) = rows_of(db)
    assert (row["foo_bar"], row["foo_bar_2"]) == ("first", "second")
    made = create(db, "posts", lexicon({"b": {"type": "integer"}, "a": {"type": "string"}}))
    assert made == {
        "b": ("bigint", "changed"),
        "a": ("text", "kept"),
        "foo_bar": ("text", "removed"),
        "foo_bar_2": ("text", "removed"),
    }
    assert columns_of(db, "sync_views.posts") == [*FIXED, "b", "a"]
    assert kinds(create(db, "posts")) == {"b": "kept", "a": "kept"}


def test_the_name_of_a_property_that_went_is_free_again(db: Session) -> None:
    create(db, "posts", text_lexicon("fooBar"))
    assert kinds(create(db, "posts", text_lexicon("foo_bar"))) == {"foo_bar": "changed"}


def test_what_depends_on_the_view_lets_it_grow_and_keeps_it_from_changing(db: Session) -> None:
    create(db, "posts", text_lexicon("a"))
    db.execute("set local role sync_owner")
    db.execute("create view sync_views.mine as select a from sync_views.posts")
    assert kinds(create(db, "posts", text_lexicon("a", "b"))) == {"a": "kept", "b": "added"}
    said = refusal(db, "posts", text_lexicon("b"))
    assert said.sqlstate == "SY402"
    assert "sync_views.mine" in (said.message_detail or "")
    assert columns_of(db, "sync_views.posts") == [*FIXED, "a", "b"]
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute("select sync.drop_view('posts')")
    assert caught.value.sqlstate == "SY402"


def test_a_view_that_is_made_anew_keeps_its_grants(db: Session) -> None:
    create(db, "posts", text_lexicon("a"))
    db.execute("set local role sync_owner")
    db.execute("grant select on sync_views.posts to public")
    db.execute("grant select on sync_views.posts to sync_replicator with grant option")
    before = db.execute(
        "select relacl::text[] as acl from pg_class where relname = 'posts'"
    ).fetchone()
    create(db, "posts", text_lexicon("b"))
    after = db.execute(
        "select relacl::text[] as acl from pg_class where relname = 'posts'"
    ).fetchone()
    assert before is not None
    assert after is not None
    assert sorted(after["acl"]) == sorted(before["acl"])


def test_indexes_of_columns_that_went_are_not_asked_for_any_more(db: Session) -> None:
    create(db, "posts", text_lexicon("a", "b"), indexed=["a", "b"])
    create(db, "posts", text_lexicon("b"))
    (row,) = db.execute("select indexes_missing from sync.list_views()").fetchall()
    assert row["indexes_missing"] == ["b", "indexed_at"]
    create(db, "posts", indexed=[])
    (row,) = db.execute("select indexes_missing from sync.list_views()").fetchall()
    assert row["indexes_missing"] == ["indexed_at"]


# Coming and going -------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("indexed", "is_possible"),
    [
        (["text"], True),
        (["created", "flag", "number", "link", "indexed_at"], True),
        (["given"], False),
        (["image"], False),
        (["texts"], False),
        (["data"], False),
        (["did"], False),
        (["nothing of the kind"], False),
        (["text", None], False),
    ],
)
def test_a_column_of_the_lexicon_that_is_small_can_have_an_index(
    db: Session, indexed: list[str | None], is_possible: bool
) -> None:
    given, columns = lexicon(SCHEMAS, **DEFS), {"given": "1"}
    if not is_possible:
        said = refusal(db, "posts", given, columns=columns, indexed=indexed)
        assert said.sqlstate == "SY002"
        return
    create(db, "posts", given, columns=columns, indexed=indexed)
    (row,) = db.execute("select * from sync.list_views()").fetchall()
    assert row["indexes_missing"] == sorted({*(name for name in indexed if name), "indexed_at"})


@pytest.mark.parametrize("column", ["indexed_at", "created", "number"])
def test_a_view_gives_its_rows_newest_first_if_that_is_asked_for(db: Session, column: str) -> None:
    World(db)
    create(db, "posts", lexicon(SCHEMAS, **DEFS), newest_by=column)
    for number in (3, 1, 2):
        value = {"number": number, "created": f"2026-01-0{number}T00:00:00Z"}
        store(db, 0, f"r{number}", value)
        db.execute(
            "update sync.stored_records set indexed_at = %s where rkey = %s",
            [f"2026-01-0{number}", f"r{number}"],
        )
    shown = db.execute("select rkey from sync_views.posts").fetchall()
    assert [row["rkey"] for row in shown] == ["r3", "r2", "r1"]
    create(db, "posts")
    assert db.execute("select rkey from sync_views.posts").fetchall() == shown
    (row,) = db.execute("select * from sync.list_views()").fetchall()
    assert row["newest_by"] == column
    assert row["indexes_missing"] == sorted({column, "indexed_at"})


@pytest.mark.parametrize("column", ["", "text", "given", "flag", "did", "image"])
def test_a_view_cannot_give_its_rows_by_any_column(db: Session, column: str) -> None:
    said = refusal(db, "posts", lexicon(SCHEMAS, **DEFS), columns={"given": "1"}, newest_by=column)
    assert said.sqlstate == "SY002"


def test_the_order_goes_with_its_column(db: Session) -> None:
    create(db, "posts", lexicon({"n": {"type": "integer"}}), newest_by="n")
    create(db, "posts", text_lexicon("n"))
    (row,) = db.execute("select * from sync.list_views()").fetchall()
    assert row["newest_by"] is None


def test_views_of_one_collection_share_their_indexes(db: Session) -> None:
    create(db, "one", text_lexicon("a", "b"), indexed=["a"])
    create(db, "two", indexed=["a", "b"])
    steps = db.execute("select * from sync.index_steps()").fetchall()
    assert len(steps) == 5
    for step in steps:
        db.execute("set local role sync_owner")
        db.execute(step["statement"].replace(" concurrently", "").encode())
    rows = db.execute("select indexes_ready from sync.list_views() order by view").fetchall()
    assert [row["indexes_ready"] for row in rows] == [["a", "indexed_at"], ["a", "b", "indexed_at"]]
    db.execute("select sync.drop_view('two')")
    steps = db.execute("select * from sync.index_steps()").fetchall()
    assert sorted(step["statement"].rpartition(" ")[0] for step in steps) == [
        "drop index concurrently",
        "drop statistics",
    ]
    heard: list[str] = []
    db.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    db.execute("select * from sync.list_records(%s)", [POST])
    assert heard == []


def test_a_lexicon_keeps_where_it_was_found(db: Session) -> None:
    db.execute(
        "select sync.put_lexicon(%s, %s, %s, %s)",
        [POST, Jsonb(text_lexicon("a")), did(0), format_cid(cid("l"))],
    )
    create(db, "posts")
    create(db, "plain", columns={"x": "1"})
    rows = db.execute("select view, lexicon_did as did from sync.list_views()").fetchall()
    assert {row["view"]: row["did"] for row in rows} == {
        "sync_views.posts": did(0),
        "sync_views.plain": None,
    }
    create(db, "posts", text_lexicon("a"))
    row = db.execute("select did, cid from sync.lexicons").fetchone()
    assert row == {"did": None, "cid": None}
