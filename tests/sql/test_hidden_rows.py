"""No code of an app is called with a row that is hidden from it, wherever the app puts that code.

PostgreSQL runs a cheap condition early: before a view's own, unless the view is a security
barrier, and while it plans, on samples that ANALYZE took. A spy here says aloud what it is given.
"""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.sql.driver import LIKE, POST, did
from tests.sql.logins import HIDDEN, House, open_house
from tests.sql.readers import Session
from tests.sql.views import create, lexicon

pytestmark = pytest.mark.rule("AC-01")

# What is read: a name for the row, and where it comes from.
SOURCES = {
    "records": "sync.records",
    "log": "sync.change_log",
    "view": "sync_views.posts",
    "other view": "sync_views.likes",
    "ordered view": "sync_views.newest_posts",
    "list": f"sync.list_records('{POST}', null, 100)",
    "batch": "sync.read_changes('spied')",
    **{
        rkey: f"sync.get_record('at://{did(number)}/{POST}/{rkey}')"
        for number, rkey in enumerate(HIDDEN, start=1)
    },
}
QUERIES = [
    "select from {source} r where {spy}(r.rkey)",
    "select from {source} r where {spy}(r.did || ' ' || r.rkey)",
    "select from {source} r where {spy}(r::text)",
    "select from {source} r where {spy}(r.rkey) or {spy}(r.value::text)",
    "select from {source} r where r.rkey operator(second.=?) 'a'",
    "select from {source} r where r.rkey::second.watched is not null",
    "select from {source} r join pg_class c on {spy}(r.rkey) and c.relname = r.rkey",
    "select from pg_class c left join {source} r on {spy}(r.rkey) where c.relname = 'pg_class'",
    "select from (select * from {source} order by rkey offset 0) r where {spy}(r.rkey)",
    "select {spy}(r.rkey) from {source} r",
    "select count(*) filter (where {spy}(r.rkey)) from {source} r",
    "select min(r.rkey) from {source} r group by r.did having {spy}(min(r.rkey))",
    "select from {source} r order by {spy}(r.rkey)",
    "select from {source} r, lateral (select {spy}(r.rkey)) s",
    "select from {source} r where exists (select where {spy}(r.rkey))",
    "select from {source} r where case when r.rkey >= '' then {spy}(r.rkey) end",
    "explain select from {source} r where r.rkey operator(second.=?) 'a'",
    "explain select from {source} r where {spy}(r.rkey)",
]
PLANS = ["", "enable_hashjoin", "enable_nestloop", "enable_indexscan", "enable_seqscan"]


@pytest.fixture(scope="module")
def house(postgres: Server) -> Iterator[House]:
    """Return a house where every table was analyzed and `second` has its spies."""
    with open_house(postgres) as house:
        with house.enter("standpipe") as conn:
            make_views(conn)
            conn.commit()
        house.administer("analyze")
        with house.enter("second") as conn:
            for volatility in ("volatile", "immutable"):
                conn.execute(
                    f"create function second.{volatility}(text) returns boolean language plpgsql"
                    f" {volatility} cost 0.0001 as"
                    " $$ begin raise notice 'saw %', $1; return true; end $$".encode()
                )
            conn.execute(
                "create function second.eq(text, text) returns boolean language plpgsql immutable"
                " cost 0.0001 as $$ begin raise notice 'saw %', $1; return $1 = $2; end $$"
            )
            # With an estimator of PostgreSQL, which tries the operator on the samples.
            conn.execute(
                "create operator second.=? (function = second.eq, leftarg = text,"
                " rightarg = text, restrict = scalarltsel, join = eqjoinsel)"
            )
            conn.execute("grant usage on schema second to standpipe")
            conn.execute("create domain second.watched as text check (second.immutable(value))")
            conn.commit()
        yield house


def make_views(conn: Session) -> None:
    """Make views of both collections, their indexes, and something in the records to show."""
    columns = {"value": "value", "code": "value #>> '{text}'"}
    given = lexicon({"createdAt": {"type": "string", "format": "datetime"}})
    create(conn, "posts", given, columns=columns, indexed=["created_at"])
    create(conn, "newest_posts", given, columns=columns, newest_by="created_at")
    create(conn, "likes", nsid=LIKE, columns=columns)
    conn.execute(
        """
        update sync.stored_records
           set value = jsonb_build_object('text', rkey, 'createdAt', '2026-01-31T12:00:00Z')
        """
    )
    for step in conn.execute("select statement from sync.index_steps()").fetchall():
        conn.execute(step["statement"].replace(" concurrently", "").encode())


def seen_by(conn: Session, statement: str) -> str:
    """Run a statement and return everything that was said meanwhile."""
    said: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        said.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        conn.execute(statement.encode())
    finally:
        conn.remove_notice_handler(note)
    return "\n".join(said)


def revealed(text: str) -> set[str]:
    return {rkey for rkey in HIDDEN if rkey in text}


@pytest.mark.parametrize("volatility", ["volatile", "immutable"])
@pytest.mark.parametrize("source", SOURCES)
def test_no_spy_sees_a_hidden_row(house: House, source: str, volatility: str) -> None:
    with house.enter("second") as conn:
        for plan in PLANS:
            if plan:
                conn.execute(f"set local {plan} = off".encode())
            for query in QUERIES:
                conn.execute("savepoint before")
                conn.execute("select sync.create_consumer('spied')")
                text = query.format(source=SOURCES[source], spy=f"second.{volatility}")
                assert revealed(seen_by(conn, text)) == set(), text
                conn.execute("rollback to savepoint before")
            conn.execute("reset all")


@pytest.mark.parametrize("source", ["records", "log", "list", "batch", "view", "ordered view"])
@pytest.mark.parametrize("query", [query for query in QUERIES if not query.startswith("explain")])
def test_a_spy_sees_what_is_visible(house: House, source: str, query: str) -> None:
    """Else the test above would show nothing."""
    with house.enter("second") as conn:
        conn.execute("select sync.create_consumer('spied')")
        text = seen_by(conn, query.format(source=SOURCES[source], spy="second.volatile"))
        assert "saw" in text or " join " in query


def test_a_spy_of_an_operator_sees_everything_and_so_do_the_samples(house: House) -> None:
    """The table and its samples do hold the hidden rows: there is something to be protected."""
    with house.enter("standpipe") as conn:
        tables = "sync.stored_records"
        text = seen_by(conn, f"select from {tables} where second.volatile(rkey)")
        assert revealed(text) == set(HIDDEN)
        text = seen_by(conn, f"explain select from {tables} where rkey operator(second.=?) 'a'")
        assert revealed(text) == set(HIDDEN)
        text = seen_by(conn, "select from sync.changes where second.volatile(rkey)")
        assert revealed(text) == set(HIDDEN)


@pytest.mark.parametrize("source", ["records", "log", "list", "batch", "view", "ordered view"])
def test_an_error_tells_nothing_of_a_hidden_row(house: House, source: str) -> None:
    """Built-in functions that fail are spies as well."""
    with house.enter("second") as conn:
        conn.execute("select sync.create_consumer('spied')")
        for rkey in HIDDEN:
            conn.execute(
                f"select from {SOURCES[source]} r"
                f" where 1 / (case when r.rkey = '{rkey}' then 0 else 1 end) = 1".encode()
            )


@pytest.mark.parametrize("view", ["posts", "newest_posts"])
def test_operators_of_an_app_are_not_taken_for_those_of_typed_columns(
    house: House, view: str
) -> None:
    """A comparison is carried into the view, where the columns of hidden rows are computed too."""
    with house.enter("second") as conn:
        for kind in ("int", "text", "bigint", "timestamp", "interval", "jsonb"):
            name = f"second.spy_{kind}"
            conn.execute(
                f"create function {name}({kind}, {kind}) returns boolean language plpgsql as"
                " $$ begin raise notice 'saw % and %', $1, $2; return true; end $$".encode()
            )
            for operator in ("=", "<", ">", "<=", ">=", "<>"):
                conn.execute(
                    f"create operator second.{operator} (function = {name}, leftarg = {kind},"
                    f" rightarg = {kind})".encode()
                )
        conn.execute("set local search_path = second, pg_catalog")
        for bound in ("2000-01-01", "2030-01-01"):
            statement = (
                f"select rkey from sync_views.{view}"
                f" where created_at operator(pg_catalog.>) pg_catalog.timestamptz '{bound}'"
            )
            assert seen_by(conn, statement) == ""


def test_statistics_of_the_tables_are_out_of_reach(house: House) -> None:
    with house.enter("second") as conn:
        rows = conn.execute(
            "select tablename from pg_stats where schemaname in ('sync', 'sync_priv')"
        ).fetchall()
        assert rows == []
        for catalog in ("pg_statistic", "pg_statistic_ext_data"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"select from {catalog}".encode())
