"""How a view changes, and the indexes and the order that it asks for."""

import psycopg
import pytest

from tests.sql.driver import POST
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


def test_a_view_that_is_made_anew_keeps_the_grants_of_the_columns_it_keeps(db: Session) -> None:
    create(db, "posts", text_lexicon("a", "b"))
    db.execute("set local role sync_owner")
    db.execute("grant select (did, a, b) on sync_views.posts to sync_replicator")
    db.execute("grant select (a) on sync_views.posts to public")
    create(db, "posts", text_lexicon("a", "c"))
    granted = db.execute(
        "select attname, attacl::text[] as acl from pg_attribute"
        " where attrelid = 'sync_views.posts'::regclass and attacl is not null order by 1"
    ).fetchall()
    assert [(row["attname"], sorted(row["acl"])) for row in granted] == [
        ("a", ["=r/sync_owner", "sync_replicator=r/sync_owner"]),
        ("did", ["sync_replicator=r/sync_owner"]),
    ]


# Indexes ----------------------------------------------------------------------------------------


def test_indexes_of_columns_that_went_are_not_asked_for_any_more(db: Session) -> None:
    create(db, "posts", text_lexicon("a", "b"), indexed=["a", "b"])
    create(db, "posts", text_lexicon("b"))
    (row,) = db.execute("select indexes_missing from sync.list_views()").fetchall()
    assert row["indexes_missing"] == ["b", "indexed_at"]
    create(db, "posts", indexed=[])
    (row,) = db.execute("select indexes_missing from sync.list_views()").fetchall()
    assert row["indexes_missing"] == ["indexed_at"]


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


# Order ------------------------------------------------------------------------------------------


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
