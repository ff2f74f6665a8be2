"""The columns of a view: their names, from a lexicon, and as they are given."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from sync.atproto.cid import format_cid
from tests.sql.driver import LIKE, POST, cid, did
from tests.sql.readers import Session, World
from tests.sql.views import FIXED, create, lexicon, refusal, rows_of, store, text_lexicon

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
        "$$], (1",
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
