"""How views of collections are read at volume, by a reader: what reaches an index, and what not.

A condition that PostgreSQL knows to be leakproof passes the security barrier and finds its index.
The order of a query does not pass: a view that is to be read newest first brings the order along.
"""

import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.postgres import TEMPLATE, Server
from tests.sql.driver import LIKE, POST
from tests.sql.plans import ANALYZED, scans, show_plans
from tests.sql.readers import Session
from tests.sql.views import create, lexicon, volume

REPOS = 20_000
POSTS = 200_000
PAGE = 50
GIVEN = lexicon(
    {
        "createdAt": {"type": "string", "format": "datetime"},
        "did": {"type": "string"},
        "number": {"type": "integer"},
        "flag": {"type": "boolean"},
        "extra": {"type": "unknown"},
    }
)


@pytest.fixture(scope="module")
def plans(postgres: Server) -> Iterator["ReaderPlans"]:
    """One database for all tests here."""
    with (
        postgres.database(template=TEMPLATE) as name,
        psycopg.connect(postgres.admin_url(name), row_factory=dict_row, autocommit=True) as conn,
    ):
        conn.execute(volume(REPOS, {LIKE: POSTS, POST: POSTS}).encode())
        indexed = ["created_at", "value_did", "number", "flag"]
        create(conn, "posts", GIVEN, indexed=indexed)
        create(conn, "newest", newest_by="indexed_at")
        create(conn, "latest", newest_by="created_at")
        for step in conn.execute("select statement from sync.index_steps()").fetchall():
            conn.execute(step["statement"].replace(" concurrently", "").encode())
        conn.execute("analyze")
        conn.execute("set role sync_reader")
        yield ReaderPlans(conn)


class ReaderPlans:
    """Plans of what a reader runs, with the rows that each step really met."""

    def __init__(self, conn: Session) -> None:
        self.conn = conn

    def of(self, query: str) -> str:
        rows = self.conn.execute(
            f"explain (analyze, costs off, timing off, summary off) {query}".encode()
        ).fetchall()
        return "\n".join(row["QUERY PLAN"] for row in rows)


def most_rows(plan: str) -> float:
    """Return how many rows the busiest step met."""
    met = re.findall(r"actual rows=([\d.]+) loops=(\d+)|Removed by Filter: (\d+)", plan)
    return max(float(rows) * int(loops) if rows else float(removed) for rows, loops, removed in met)


BY_AN_INDEX = {
    "select * from sync.records where did = 'did:web:r9.test'": "stored_records_pkey",
    f"select * from sync.records where did = 'did:web:r9.test' and collection = '{POST}'":
        "stored_records_pkey",
    "select * from sync_views.posts where did = 'did:web:r9.test'": "stored_records_pkey",
    "select * from sync_views.posts where did = 'did:web:r9.test' and rkey = 'r7'":
        "stored_records_pkey",
    "select * from sync_views.newest where did = 'did:web:r9.test'": "stored_records_pkey",
    "select * from sync_views.posts where indexed_at > '2023-10-20'": "records_newest_",
    "select * from sync_views.posts where indexed_at > '2023-10-20'"
        f" order by indexed_at desc limit {PAGE}": "records_newest_",
    "select * from sync_views.posts where created_at > '2023-10-20'": "records_2_",
    "select * from sync_views.posts where created_at between '2020-01-01' and '2020-01-02'":
        "records_2_",
    "select * from sync_views.posts where created_at > '2023-10-20'"
        f" order by created_at desc limit {PAGE}": "records_2_",
    "select * from sync_views.posts where value_did = 'did:web:r7.test'": "records_2_",
    "select * from sync_views.posts where number = 7": "records_2_",
    "select * from sync_views.posts where number in (7, 8, 9)": "records_2_",
    "select * from sync_views.posts where flag": "records_2_",
    f"select * from sync_views.newest order by indexed_at desc limit {PAGE}": "records_newest_",
    "select * from sync_views.newest where indexed_at < '2022-01-01'"
        f" order by indexed_at desc limit {PAGE}": "records_newest_",
    f"select * from sync_views.latest order by created_at desc limit {PAGE}": "records_2_",
    "select * from sync_views.latest where created_at > '2020-06-01'"
        f" order by created_at desc limit {PAGE}": "records_2_",
    "select * from sync_views.latest where created_at < '2022-01-01'"
        f" order by created_at desc limit {PAGE}": "records_2_",
}  # fmt: skip


@pytest.mark.parametrize(("query", "index"), BY_AN_INDEX.items())
def test_a_reader_s_query_reads_little_more_than_it_shows(
    plans: ReaderPlans, query: str, index: str
) -> None:
    plan = plans.of(query)
    assert index in plan, plan
    assert "Seq Scan on stored_records" not in plan, plan
    assert most_rows(plan) <= 2_000, plan
    if "limit" in query and "posts" not in query:
        assert "Sort" not in plan, plan
        assert most_rows(plan) <= 3 * PAGE, plan


def test_an_order_does_not_pass_the_barrier(plans: ReaderPlans) -> None:
    """If this fails, PostgreSQL has learned it, and `p_newest_by` can go."""
    plan = plans.of(f"select * from sync_views.posts order by indexed_at desc limit {PAGE}")
    assert "Sort" in plan
    assert most_rows(plan) > POSTS / 2


def test_a_condition_on_json_does_not_pass_the_barrier(plans: ReaderPlans) -> None:
    """If this fails, an index on JSON has become worth building."""
    row = plans.conn.execute(
        "select count(*) as n from pg_proc where proname like 'jsonb%' and proleakproof"
    ).fetchone()
    assert row == {"n": 0}


def test_pages_of_list_records_lead_to_rows_of_a_view(plans: ReaderPlans) -> None:
    plan = plans.of(
        f"""
        select v.* from sync.list_records('{POST}', null, {PAGE}) l
         cross join lateral (select * from sync_views.posts v
                              where v.did = l.did and v.rkey = l.rkey offset 0) v
        """
    )
    assert "stored_records_pkey" in plan, plan
    assert most_rows(plan) <= 3 * PAGE, plan


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (f"select * from sync.list_records('{POST}', null, {PAGE})", "records_newest_"),
        (f"select * from sync.get_record('at://did:web:r9.test/{POST}/r7')", "_pkey"),
    ],
)
def test_functions_find_what_they_look_for_by_an_index(
    postgres: Server, plans: ReaderPlans, query: str, index: str
) -> None:
    name = plans.conn.info.dbname
    with psycopg.connect(postgres.admin_url(name), row_factory=dict_row, autocommit=True) as conn:
        show_plans(conn, ANALYZED)
        seen: list[str] = []
        conn.add_notice_handler(lambda note: seen.append(str(note.message_primary)))
        conn.execute(query.encode())
    text = "\n".join(seen)
    assert index in text, text
    assert scans(text) == []
    assert "->  Sort" not in text, text
