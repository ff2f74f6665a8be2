"""sync.search() and what keeps its tables: texts as records have them, embeddings as texts do."""

import json
from typing import Any

import psycopg
import pytest

from sync.roles import INGESTER, READER
from tests.embedders import DIMENSIONS, embed
from tests.sql.driver import POST, did
from tests.sql.readers import Session, World
from tests.sql.searching import NAME, Searching, enable, index_statements, refusal

MISSING = "SY601"
needs_pgvector = pytest.mark.usefixtures("pgvector")


@pytest.fixture
def search(pgvector: None, db: Session) -> Searching:
    """Return a search over a few posts of two repos."""
    search = Searching(World(db))
    for repo, rkey, text in (
        (0, "boat", "a small boat in a storm"),
        (0, "ship", "a large ship in the harbour"),
        (1, "cake", "butter sugar flour and eggs"),
    ):
        search.write(repo, rkey, json.dumps({"text": text}))
    search.enable()
    return search


# Texts ------------------------------------------------------------------------------------------


def test_texts_are_those_of_the_visible_records(search: Searching) -> None:
    search.settle()
    assert len(search.kept()) == 3
    search.write(0, "boat", '{"text": "another text"}')
    search.world.remove(0, "ship")
    search.write(0, "long", json.dumps({"text": " \n" + "word " * 3000}))
    for number, odd in enumerate(
        ["{}", '{"text": null}', '{"text": "  \\n\\t "}', '{"text": 5}', '{"text": {"a": [1]}}',
         "[]", '"text"', "1", "null"]
    ):  # fmt: skip
        search.write(1, f"odd{number}", odd)
    search.settle()
    expected = search.expected()
    kept = {key: text for key, text in search.kept().items() if not key[1].startswith("odd")}
    assert kept == {key: text for key, text in expected.items() if not key[1].startswith("odd")}
    assert {key[1] for key in search.kept()} == {"boat", "long", "cake", "odd3", "odd4"}


def test_a_record_that_loses_its_text_is_found_no_longer(search: Searching) -> None:
    search.embed_all()
    search.write(0, "boat", '{"text": " "}')
    search.settle()
    assert {key[1] for key in search.kept()} == {"ship", "cake"}


def rows_read(db: Session) -> int:
    """Count what this transaction has read of the table and its indexes."""
    row = db.execute(
        "select sum(pg_stat_get_xact_tuples_returned(i)) as n"
        " from (select 'sync_search.posts'::regclass::oid union"
        " select indexrelid from pg_index where indrelid = 'sync_search.posts'::regclass) t (i)"
    ).fetchone()
    return int((row or {})["n"])


def test_the_texts_of_an_account_go_without_reading_it_for_each(search: Searching) -> None:
    for n in range(300):
        search.write(0, f"r{n}", '{"text": "a boat"}')
    search.settle()
    assert len(search.kept()) == 303
    search.db.execute(
        "update sync.stored_records set value = '{}',"
        " cid = '\\x01711220' || sha256(convert_to(rkey, 'UTF8'))"
    )
    before = rows_read(search.db)
    search.settle()
    assert search.kept() == {}
    assert rows_read(search.db) - before < 300 * 10


def test_taking_down_and_restoring_takes_texts_along(search: Searching) -> None:
    search.embed_all()
    search.world.take_down(0)
    search.settle()
    assert {key[1] for key in search.kept()} == {"cake"}
    search.world.restore(0)
    search.settle()
    assert search.kept() == search.expected()
    assert search.embedded() == {"cake"}


@needs_pgvector
def test_a_text_that_cannot_be_made_is_none(db: Session) -> None:
    """An error for one record of a stranger would stop the search for all."""
    search = Searching(World(db))
    search.enable(p_text="(10 / (value ->> 'n')::int)::text")
    for rkey, value in (("a", '{"n": 5}'), ("b", '{"n": 0}'), ("c", '{"n": "x"}'), ("d", "[]")):
        search.write(0, rkey, value)
    search.settle()
    assert search.kept() == {(did(0), "a"): "2"}


# Embeddings -------------------------------------------------------------------------------------


def test_texts_wait_in_the_order_of_their_keys(search: Searching) -> None:
    search.settle()
    waiting = search.waiting()
    assert [text[1] for text in waiting] == ["boat", "ship", "cake"]
    assert [text[1] for text in search.waiting(waiting[0][:2], 1)] == ["ship"]
    assert search.waiting(waiting[-1][:2]) == []


def test_an_embedding_is_written_once_and_only_beside_its_text(search: Searching) -> None:
    search.settle()
    waiting = search.waiting()
    search.write(0, "boat", '{"text": "changed meanwhile"}')
    search.world.remove(1, "cake")
    search.settle()
    assert search.store(waiting) == 1
    assert search.store(waiting) == 0
    assert search.embedded() == {"ship"}
    assert [text[1:] for text in search.waiting()] == [("boat", "changed meanwhile")]


def test_an_embedding_goes_with_a_change_and_stays_without_one(search: Searching) -> None:
    search.embed_all()
    search.write(0, "boat", '{"text": "a small boat in a storm", "langs": ["en"]}')
    search.write(0, "ship", '{"text": "no more"}')
    search.settle()
    assert search.embedded() == {"boat", "cake"}


def test_a_rebuild_keeps_embeddings_and_mends_texts(search: Searching) -> None:
    search.embed_all()
    search.db.execute("update sync_search.posts set text = 'wrong' where rkey = 'ship'")
    rebuild = "select deleted, updated, inserted from sync.rebuild_projection(%s)"
    done = search.db.execute(rebuild, [f"search {NAME}"]).fetchone()
    assert done == {"deleted": 0, "updated": 1, "inserted": 0}  # no other goes through the index
    assert search.kept() == search.expected()
    assert search.embedded() == {"boat", "cake"}


def test_a_text_that_was_refused_waits_no_longer_until_it_changes(search: Searching) -> None:
    search.settle()
    [boat, *_] = search.waiting()
    refuse = "select sync.refuse_text(%s, %s, %s, %s, 'too odd')"
    search.db.execute(refuse, [NAME, boat[0], boat[1], "another text"])
    assert len(search.waiting()) == 3
    search.db.execute(refuse, [NAME, *boat])
    assert len(search.waiting()) == 2
    assert search.store([boat]) == 0
    counts = search.db.execute("select * from sync.count_texts(%s)", [NAME]).fetchone()
    uri = f"at://{did(0)}/{POST}/boat"
    assert counts == {
        "embedded": 0, "waiting": 2, "refused": 1, "refused_uri": uri, "refused_for": "too odd"
    }  # fmt: skip
    search.write(0, "boat", '{"text": "less odd"}')
    search.settle()
    assert len(search.waiting()) == 3


# Finding ----------------------------------------------------------------------------------------


def test_the_nearest_come_first(search: Searching) -> None:
    search.embed_all()
    assert search.find("small boat storm")[0] == "boat"
    assert search.find("flour and sugar")[0] == "cake"
    assert len(search.find("a")) == 3
    assert len(search.find("a", 2)) == 2
    row = search.db.execute(
        "select * from sync.search(%s, %s::real[], 1)", [NAME, embed("butter sugar flour and eggs")]
    ).fetchone()
    assert row is not None
    assert row["uri"] == f"at://{did(1)}/{POST}/cake"
    assert row["text"] == "butter sugar flour and eggs"
    assert row["distance"] == pytest.approx(0, abs=1e-6)


def test_what_is_hidden_or_gone_is_never_found(search: Searching) -> None:
    """Also while the table does not know of it yet, as when its projection is paused."""
    search.embed_all()
    search.world.take_down(0)
    assert search.find("boat") == ["cake"]
    search.world.restore(0)
    search.world.remove(0, "boat")
    assert set(search.find("boat")) == {"ship", "cake"}
    search.world.untrack(0)
    assert search.find("boat") == ["cake"]


def test_hits_that_are_hidden_do_not_crowd_out_the_others(search: Searching) -> None:
    for number in range(200):
        search.write(0, f"n{number}", '{"text": "flour and sugar"}')
    search.embed_all()
    search.db.execute("analyze sync_search.posts")
    for statement in index_statements(search.db):
        search.db.execute(statement.replace("concurrently ", "").encode())
    search.world.take_down(0)
    search.db.execute("set local hnsw.iterative_scan = relaxed_order")
    assert search.find("flour and sugar", 5) == ["cake"]
    row = search.db.execute("show hnsw.iterative_scan").fetchone()
    assert row == {"hnsw.iterative_scan": "relaxed_order"}


HUGE = "{" + ",".join(["1"] * 20_000) + "}"


@pytest.mark.parametrize("embedding", ["{1,2}", "{}", "{NULL}", "{NaN}", "{{1},{2}}", HUGE, None])
def test_an_embedding_of_another_kind_is_refused(search: Searching, embedding: Any) -> None:
    statement = "select * from sync.search('posts', %s::real[])"
    assert refusal(search.db, statement, embedding).sqlstate == "SY002"
    nan = "{" + ",".join(["NaN"] * DIMENSIONS) + "}"
    assert refusal(search.db, statement, nan).sqlstate == "SY002"


@pytest.mark.parametrize("limit", [0, -1, 1001, None])
def test_a_limit_is_within_bounds(search: Searching, limit: Any) -> None:
    statement = "select * from sync.search('posts', %s::real[], %s)"
    assert refusal(search.db, statement, embed("a"), limit).sqlstate == "SY002"


@pytest.mark.parametrize("name", ["none", "", None, "posts__find", "POSTS", 'x"; drop', "x" * 500])
def test_there_is_no_search_of_another_name(search: Searching, name: Any) -> None:
    for statement in (
        "select * from sync.search(%s, '{1}')",
        "select sync.disable_search(%s)",
        "select * from sync.count_texts(%s)",
    ):
        assert refusal(search.db, statement, name).sqlstate == "SY602"


# Making one -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        *({"p_name": name} for name in (
            None, "", "Posts", "1a", "a b", "a-b", "a__b", "_a", "a_", "x" * 41, 'a"b', "pösts")),
        *({"p_nsid": nsid} for nsid in (None, "", "app.bsky.*", "*", "not one")),
        *({"p_embedder": url} for url in (
            None, "", "x", "ftp://x/", "http://a:b@c/", "http://", "http://a b/")),
        *({"p_dimensions": number} for number in (None, 0, -1, 4001)),
        *({"p_rate": rate} for rate in (0, -1, float("nan"), float("inf"))),
        *({"p_batch": number} for number in (None, 0, 2049)),
        {"p_model": "x" * 201},
        *({"p_text": text} for text in (
            None, "", "  ", "--", "value ->> 'a'; drop table x", "value ->> 'a')",
            "value ->> 'a') , (1",
            "value ->> 'a' from sync.repos", "nothing", "op", "did", "found::text", "$1", "sqlerrm",
            "(select 'x')", "(select did from sync.repos limit 1)", "random()::text", "now()::text",
            "current_user::text", "pg_read_file('x')", "set_config('role', 'x', false)",
            "count(*)::text", "unnest(array['a'])", "row_number() over ()", "pg_sleep(1)",
            "query_to_xml('select 1', true, true, '')::text", "1/0")),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(db: Session, chosen: dict[str, Any]) -> None:
    World(db)
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        enable(db, **chosen)
    assert caught.value.sqlstate == "SY002"
    assert db.execute("select from sync.searches").fetchall() == []


@needs_pgvector
def test_an_expression_takes_nothing_that_somebody_could_exchange(db: Session) -> None:
    World(db)
    db.execute("create schema app")
    db.execute("create function app.f(jsonb) returns text immutable language sql return 'x'")
    db.execute("create function pg_temp.f(jsonb) returns text immutable language sql return 'x'")
    for text in ("app.f(value)", "pg_temp.f(value)"):
        told = pytest.raises(psycopg.Error, match="may not use the function")
        with told as caught, db.transaction():
            enable(db, p_text=text)
        assert caught.value.sqlstate == "SY002"
    enable(db, p_text="sync_migration.as_text(value -> 'text')")


def test_a_name_is_taken_once(search: Searching) -> None:
    with pytest.raises(psycopg.Error) as caught, search.db.transaction():
        search.enable()
    assert caught.value.sqlstate == "SY603"
    search.enable(p_name="others")
    search.db.execute("select sync.disable_search('others'), sync.disable_search('posts')")
    rows = search.db.execute(
        "select relname from pg_class where relnamespace = 'sync_search'::regnamespace"
        " union all select proname from pg_proc where pronamespace = 'sync_search'::regnamespace"
        " union all select name from sync.projection_status"
    ).fetchall()
    assert rows == []
    search.enable()
    search.settle()
    assert search.kept() == search.expected()


def test_the_list_says_what_there_is(search: Searching) -> None:
    [row] = search.db.execute("select * from sync.list_searches()").fetchall()
    assert (row["name"], row["collection"], row["dimensions"]) == (NAME, POST, DIMENSIONS)
    assert (row["is_indexed"], row["projection_state"], row["error"]) == (False, "running", None)
    search.db.execute("select sync.note_search_error('posts', 'it is down')")
    [row] = search.db.execute("select * from sync.list_searches()").fetchall()
    assert row["error"] == "it is down"
    search.db.execute(f"set local role {READER}".encode())
    [row] = search.db.execute("select * from sync.list_searches()").fetchall()
    assert row["error"] is None
    assert row["error_at"] is not None


@needs_pgvector
def test_more_than_an_index_takes_in_full_width(db: Session) -> None:
    search = Searching(World(db))
    search.enable(p_dimensions=3000)
    search.write(0, "a", '{"text": "a"}')
    search.settle()
    numbers = embed("a", dimensions=3000)
    db.execute(
        "select sync.store_embeddings('posts', array[%s], array['a'], array['a'], %s::real[])",
        [did(0), numbers],
    )
    for statement in index_statements(db):
        db.execute(statement.replace("concurrently ", "").encode())
    rows = db.execute("select rkey from sync.search('posts', %s::real[])", [numbers]).fetchall()
    assert [row["rkey"] for row in rows] == ["a"]


# Roles ------------------------------------------------------------------------------------------


def refused(db: Session, statement: str) -> bool:
    try:
        with db.transaction(force_rollback=True):
            db.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_a_reader_searches_and_touches_nothing(search: Searching) -> None:
    search.embed_all()
    search.db.execute(f"set local role {READER}".encode())
    assert search.find("boat")[0] == "boat"
    for statement in (
        "select from sync_search.posts",
        "delete from sync_search.posts",
        "select from sync.searches",
        "select sync_search.posts__text('{}', null, null)",
        "select sync_search.posts__apply('pg_class', '{}')",
        "select sync.waiting_texts('posts', '', '', 1)",
        "select sync.disable_search('posts')",
        "select sync.enable_search('x', 'a.b.c', '1', 'http://x/', 3)",
        "create table sync_search.mine ()",
    ):
        assert refused(search.db, statement), statement


def test_the_service_writes_embeddings_and_no_texts(search: Searching) -> None:
    search.settle()
    search.db.execute(f"set local role {INGESTER}".encode())
    assert search.store(search.waiting()) == 3
    search.db.execute("select sync.note_search_error('posts', null)")
    for statement in (
        "update sync_search.posts set text = 'x'",
        "insert into sync_search.posts (did, rkey, text) values ('a', 'b', 'c')",
        "delete from sync_search.posts",
        "select from sync.searches",
        "select * from sync.search('posts', '{1}')",
    ):
        assert refused(search.db, statement), statement
