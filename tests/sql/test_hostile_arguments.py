"""Texts that somebody else made up: names, patterns, dids, positions, records.

Each is taken as a text or refused by a rule of ours; none of our functions composes SQL of one.
"""

from collections.abc import Iterator

import pytest

from tests.postgres import Server
from tests.sql.driver import Driver, Event, Op, did
from tests.sql.logins import House, open_house, sqlstate_of
from tests.sql.readers import Reader, Session, make_reader


@pytest.fixture(scope="module")
def house(postgres: Server) -> Iterator[House]:
    with open_house(postgres) as house:
        yield house


HOSTILE = [
    "'; drop schema sync cascade; --",
    "x'); select sync.drop_consumer('firsts'); --",
    "$$; drop schema sync cascade; $$",
    'x"; drop schema sync cascade; --',
    "%s %I %L %1$s {0} \\\\ \\'",
    "a\nb\tc\x1b[2J",
    "null",
    "*",
    "did:plc:x' or true --",
    "at://did:plc:x/a.b.c/' or '1'='1",
    "1.1.' or true --",
    "\U0001f600" * 60,
    "(1,2,3)",
    "{a,b}",
    "__proto__",
    "pg_temp.trap()",
]
WITH_ONE_TEXT = {
    "second": [
        "select sync.create_consumer(%s)",
        "select sync.create_consumer('x', array[%s])",
        "select sync.create_consumer('x', null, array[%s])",
        "select sync.create_consumer('x', null, null, %s)",
        "select sync.read_changes(%s)",
        "select sync.replay(%s)",
        "select sync.replay('mine', array[%s])",
        "select sync.replay('mine', null, array[%s])",
        "select sync.drop_consumer(%s)",
        "select sync.run_projection(%s)",
        "select sync.pause_projection(%s)",
        "select sync.resume_projection(%s)",
        "select sync.rebuild_projection(%s)",
        "select sync.drop_projection(%s)",
        "select sync.search(%s, '{1}')",
        "select sync.position_id(%s)",
        "select sync.get_record(%s)",
        "select sync.list_records(%s)",
        "select sync.list_records('a.b.c', %s)",
    ],
    "standpipe": [
        "select sync.track_repos(array[%s])",
        "select sync.untrack_repos(array[%s])",
        "select sync.resync_repos(array[%s])",
        "select sync.track_collections(array[%s])",
        "select sync.untrack_collections(array[%s])",
        "select sync.take_down_repos(array[%s])",
        "select sync.restore_repos(array[%s])",
        "select sync.add_source(%s)",
        "select sync.remove_source(%s)",
        "select sync.create_view(%s, 'a.b.c', null, '{}')",
        "select sync.create_view('x', %s, null, '{}')",
        "select sync.create_view('x', 'a.b.c', null, jsonb_build_object('x', %s::text))",
        "select sync.create_view('x', 'a.b.c', null, jsonb_build_object(%s::text, '1'))",
        "select sync.create_view('x', 'a.b.c', to_jsonb(%s::text))",
        "select sync.create_view('x', 'a.b.c', null, '{\"x\": \"1\"}', array[%s])",
        "select sync.create_view('x', 'a.b.c', null, '{\"x\": \"1\"}', null, %s)",
        "select sync.drop_view(%s)",
        "select sync.enable_search(%s, 'a.b.c', 'null', 'http://x/', 3)",
        "select sync.enable_search('x', %s, 'null', 'http://x/', 3)",
        "select sync.enable_search('x', 'a.b.c', %s, 'http://x/', 3)",
        "select sync.enable_search('x', 'a.b.c', 'null', %s, 3)",
        "select sync.enable_search('x', 'a.b.c', 'null', 'http://x/', 3, %s)",
        "select sync.disable_search(%s)",
        "select sync.count_texts(%s)",
        "select sync.put_lexicon(%s, '{}', 'did:web:x.test', 'b')",
        "select sync.put_lexicon('a.b.c', '{}', %s, 'b')",
        "select sync.put_lexicon('a.b.c', '{}', 'did:web:x.test', %s)",
    ],
}


@pytest.mark.parametrize(
    ("login", "statement"),
    [(login, statement) for login, statements in WITH_ONE_TEXT.items() for statement in statements],
)
def test_a_text_is_taken_as_a_text(house: House, login: str, statement: str) -> None:
    """It does what it says or is refused by a rule of ours; no error of PostgreSQL's parser."""
    with house.enter(login) as conn:
        if login == "second":
            conn.execute("select sync.create_consumer('mine')")
        for text in HOSTILE:
            sqlstate = sqlstate_of(conn, statement, text)
            assert sqlstate is None or sqlstate.startswith("SY"), text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_consumer_may_have_any_name(house: House, name: str) -> None:
    with house.enter("second") as conn:
        conn.execute("select sync.create_consumer(%s)", [name])
        reader = make_reader(conn, "other")
        assert Reader(conn, name).read_all() == reader.read_all()
        conn.execute("select sync.replay(%s)", [name])
        conn.execute("select sync.drop_consumer(%s)", [name])
        rows = conn.execute("select name from sync.consumer_status where name = %s", [name])
        assert rows.fetchall() == []


def test_hostile_records_are_stored_and_delivered_as_they_are(house: House) -> None:
    with house.enter("standpipe") as conn:
        conn.autocommit = True
        lane = Driver(conn)
        lane.load(8, {}, at=10, data="t10")
        conn.execute("select sync.create_consumer('hostile', null, array[%s], 'now')", [did(8)])
        texts = [text for text in HOSTILE if "\\" not in text]
        ops = [Op("create", text, text) for text in texts]
        commit = Event(did(8), rev=11, since=10, before="t10", data="t11", ops=ops)
        assert lane.apply(commit) == {"applied": 1}
        told = conn.execute("select rkey, value from sync.read_changes('hostile')").fetchall()
        assert [row["rkey"] for row in told] == texts
        assert [row["value"]["text"] for row in told] == texts
        shown = conn.execute("select rkey from sync.records where did = %s", [did(8)]).fetchall()
        assert {row["rkey"] for row in shown} == set(texts)


# What the code says -----------------------------------------------------------------------------

# Statements that have to be composed, of numbers and of names that are ours; and those that take
# a text, which run with the rights of whoever gives it.
COMPOSING = {"open_stage", "make_partitions"}
RUN_AS_CALLER = {
    "checked_expression", "define_view", "drop_view", "apply_step", "create_projection",
    "rebuild_projection",
    # Of a search each names its own table, to which its caller needs a right; and what makes one.
    "checked_text", "define_search", "enable_search", "disable_search", "count_texts", "search",
    "waiting_texts", "store_embeddings", "refuse_text",
    "projection_flaw",  # which only says the word
}  # fmt: skip
# Projections are about a table and a function of the caller. What is given them runs with his
# rights, but for the one that only looks them up in the catalog.
TAKE_CODE = {"create_projection", "apply_step", "own_writes", "difference_steps"}
LOOK_CODE_UP = {"add_projection"}
RUNS_A_TEXT = (
    r"\mexecute\M(?! (function|procedure))|query_to_xml|table_to_xml|cursor_to_xml|dblink|"
    r"\mreg(proc|procedure|oper|operator)\M"
)


def test_no_function_runs_a_text_of_its_caller(db: Session) -> None:
    rows = db.execute(
        """
        select p.proname as name, p.prosecdef as is_definer,
               exists (select from unnest(coalesce(p.proallargtypes, p.proargtypes)) as t (type)
                        where t.type not in ('bigint'::regtype, 'int'::regtype)) as takes_a_text
          from pg_proc p
         where p.pronamespace::regnamespace::text in ('sync', 'sync_priv', 'sync_stage')
           and regexp_replace(coalesce(p.prosrc, ''), '--[^\\n]*', '', 'g') ~* %s
        """,
        [RUNS_A_TEXT],
    ).fetchall()
    assert {row["name"] for row in rows if not row["takes_a_text"]} == COMPOSING
    takers = [row for row in rows if row["takes_a_text"]]
    assert {row["name"] for row in takers if not row["is_definer"]} == RUN_AS_CALLER
    assert [row["name"] for row in takers if row["is_definer"]] == []


def test_no_function_takes_code_from_its_caller(db: Session) -> None:
    """A function, an operator or a table by name would run what its owner made of it."""
    rows = db.execute(
        """
        select p.proname as name, p.prosecdef as is_definer from pg_proc p
         where p.pronamespace::regnamespace::text in ('sync', 'sync_priv', 'sync_stage')
           and exists (select from unnest(p.proargtypes) as t (type)
                        where t.type::regtype::text like 'reg%')
        """
    ).fetchall()
    assert {row["name"] for row in rows if not row["is_definer"]} == TAKE_CODE
    assert {row["name"] for row in rows if row["is_definer"]} == LOOK_CODE_UP
