"""What apps read, planned for a hundred million records of a million repos.

There are 200,000 real rows. What PostgreSQL has noted about the tables is then multiplied: it
reckons with that density over the blocks there are, and with that many different repos. So it
plans as for the large tables, and what it plans really runs on the small ones.

Each path is planned for its values, without them, and by a session that has run it often and
keeps the plan or not as PostgreSQL likes.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from sync.indexes import build_indexes
from tests.postgres import TEMPLATE, Server
from tests.sql.driver import LIKE, POST
from tests.sql.plans import ANALYZED, show_plans
from tests.sql.projecting import App, app_roles
from tests.sql.readers import Session
from tests.sql.views import create, lexicon, volume

Node = dict[str, Any]
SMALL = "com.example.small"
REPOS, POSTS, LIKES, SMALLS = 5_000, 120_000, 79_000, 1_000
RECORDS, CHANGES = POSTS + LIKES + SMALLS, 50_000
BELIEVED_REPOS, BELIEVED_RECORDS, BELIEVED_CHANGES = 1_000_000, 100_000_000, 50_000_000
PAGE = 50
# The most that a step may meet here, of rows or of what a filter throws away: a few times what
# the largest answer has.
MOST_ROWS = 2_500
# The most that a plan may expect to sort.
MOST_SORTED = 100_000
# Above it PostgreSQL compiles a plan before it runs it (jit_above_cost).
MOST_COST = 100_000
LARGE = re.compile(r"stored_records|repos|heads|changes_\d+")
RECORDS_ALONE = re.compile("stored_records")
ID = "the id of {}"
GIVEN = {
    "createdAt": {"type": "string", "format": "datetime"},
    "did": {"type": "string"},
    "number": {"type": "integer"},
    "flag": {"type": "boolean"},
}
HEADS = """
insert into sync.heads (repo_id, rev, data_cid, commit_block, seen_rev)
select r.repo_id, '3kaaaaaaaaaaa', '\\x01711220' || sha256(''), 'block', '3kaaaaaaaaaaa'
  from sync.repos r
"""
LOG = f"""
select sync.maintain();
with numbers as (select last_value as last from sync_priv.change_ids)
insert into sync.changes (change_id, kind, repo_id, collection_id, rkey, rev, cid, is_live,
                          value, logged_at)
select n.last + g, case when g % 1000 = 0 then 'snapshot' else 'update' end,
       g % {REPOS} + 1, c.collection_id, case when g % 1000 > 0 then 'r' || g end,
       '3kaaaaaaaaaaa', '\\x01711220' || sha256(''), true, '{{}}', now()
  from numbers n, generate_series(1, {CHANGES}) g, sync.collections c
 where c.nsid = case when g % 1000 = 1 then '{SMALL}' else '{POST}' end;
select setval('sync_priv.change_ids', (select max(change_id) from sync.changes));
"""
# Every index of a table has that many times more entries too, but for those of the small
# collection, of which nothing is multiplied.
BELIEVE = f"""
update pg_class c
   set reltuples = c.reltuples * t.times
  from (values ('sync.repos'::regclass, {BELIEVED_REPOS / REPOS}),
               ('sync.heads', {BELIEVED_REPOS / REPOS}),
               ('sync.stored_records', {BELIEVED_RECORDS / RECORDS}),
               ('sync_priv.changes_0', {BELIEVED_CHANGES / CHANGES})) t (owner, times)
 where (c.oid = t.owner
        or c.oid in (select i.indexrelid from pg_index i where i.indrelid = t.owner))
   and c.reltuples > 0
   and not exists (select from pg_index i, sync.collections k
                    where i.indexrelid = c.oid and k.nsid = '{SMALL}'
                      and pg_get_expr(i.indpred, i.indrelid)
                          = format('(collection_id = %s)', k.collection_id));
update pg_statistic s
   set stadistinct = {BELIEVED_REPOS}
  from pg_attribute a
 where a.attrelid = s.starelid and a.attnum = s.staattnum and a.attname = 'repo_id'
   and a.attrelid in ('sync.stored_records'::regclass, 'sync_priv.changes_0'::regclass);
-- A few repos are often in the sample by chance, and none is in the tables.
update pg_statistic s
   set stakind1 = 0
  from pg_attribute a
 where a.attrelid = s.starelid and a.attnum = s.staattnum and a.attname = 'repo_id'
   and a.attrelid = 'sync.stored_records'::regclass and s.stakind1 = 1;
update pg_statistic s
   set stanumbers1 = '{{0.6, 0.39999, 0.00001}}'
  from pg_attribute a
 where a.attrelid = s.starelid and a.attnum = s.staattnum and a.attname = 'collection_id'
   and a.attrelid = 'sync.stored_records'::regclass
   and s.stakind1 = 1 and cardinality(s.stanumbers1) = 3;
"""
SHOWN = (ANALYZED, "set auto_explain.log_timing = off", "set auto_explain.log_format = json")
MODES = {"custom": "force_custom_plan", "generic": "force_generic_plan", "kept": "auto"}
# PostgreSQL decides about a plan to keep at the sixth time.
ROUNDS = {"custom": 1, "generic": 1, "kept": 8}


@pytest.fixture(scope="module")
def database(postgres: Server) -> Iterator[str]:
    """One database for all tests here: what is believed is committed, and goes with it."""
    with (
        app_roles(postgres),
        postgres.database(template=TEMPLATE) as name,
        psycopg.connect(postgres.admin_url(name), row_factory=dict_row, autocommit=True) as conn,
    ):
        conn.execute(volume(REPOS, {POST: POSTS, LIKE: LIKES, SMALL: SMALLS}).encode())
        conn.execute(HEADS.encode())
        create(conn, "posts", lexicon(GIVEN), indexed=["created_at", "value_did", "number", "flag"])
        create(conn, "newest", newest_by="indexed_at")
        create(conn, "latest", newest_by="created_at")
        small = lexicon(GIVEN, nsid=SMALL)
        create(conn, "small", small, nsid=SMALL, indexed=["number"], newest_by="indexed_at")
        assert asyncio.run(build_indexes(postgres.service_url(name)))
        conn.execute(
            "select sync.create_consumer('all'),"
            f" sync.create_consumer('small', array['{SMALL}'])".encode()
        )
        app = App(conn)
        app.make("all_kept")
        app.make("small_kept", [SMALL])
        conn.execute(LOG.encode())
        conn.execute("vacuum analyze")
        conn.execute(BELIEVE.encode())
        yield name


class Plans:
    """A session that sees the plans of all it runs, those of functions included."""

    def __init__(self, conn: Session, mode: str) -> None:
        self.conn = conn
        self.mode = mode
        self.seen: list[Node] = []
        show_plans(conn, *SHOWN, f"set plan_cache_mode = {MODES[mode]}")
        conn.add_notice_handler(self._note)

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        _, is_plan, text = (diagnostic.message_primary or "").partition("plan:\n")
        if is_plan:
            self.seen.append(json.loads(text)["Plan"])

    def of(self, query: str, *arguments: object) -> list[Node]:
        """Return the plans of a prepared statement and of all that it ran, the last time."""
        for _ in range(ROUNDS[self.mode]):
            self.seen.clear()
            self.conn.execute(query.encode(), arguments, prepare=True)
        assert self.seen
        return self.seen


@pytest.fixture(scope="module", params=MODES)
def service(postgres: Server, database: str, request: pytest.FixtureRequest) -> Iterator[Plans]:
    """A session that may do everything."""
    with psycopg.connect(
        postgres.admin_url(database), row_factory=dict_row, autocommit=True
    ) as conn:
        yield Plans(conn, request.param)


@pytest.fixture
def reader(service: Plans) -> Iterator[Plans]:
    """The same session as a reader."""
    service.conn.execute("set role sync_reader")
    yield service
    service.conn.execute("reset role")


def steps(plan: Node) -> Iterator[Node]:
    """Return every step of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from steps(below)


def long_reads(plan: Node, tables: re.Pattern[str] = LARGE) -> list[str]:
    """Return the steps that read a large table from end to end, or much of it."""
    found = []
    for step in steps(plan):
        if not tables.fullmatch(step.get("Relation Name", "")):
            continue
        met = step["Actual Rows"] * step["Actual Loops"] + step.get("Rows Removed by Filter", 0)
        if step["Node Type"] == "Seq Scan" or met > MOST_ROWS:
            found.append(f"{step['Node Type']} on {step['Relation Name']}, {met} rows")
    return found


def long_work(plan: Node) -> list[str]:
    """Return what else would take long at the size that is believed."""
    found = []
    if plan["Total Cost"] > MOST_COST:
        found.append(f"a cost of {plan['Total Cost']}")
    for step in steps(plan):
        met = step["Actual Rows"] * step["Actual Loops"]
        if met > MOST_ROWS or (step["Node Type"] == "Sort" and step["Plan Rows"] > MOST_SORTED):
            found.append(f"{step['Node Type']} of {met} rows, {step['Plan Rows']} expected")
    return found


# What is believed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("sync.stored_records", BELIEVED_RECORDS),
        (f"sync.stored_records where collection_id = {ID.format(POST)}", BELIEVED_RECORDS * 0.6),
        (f"sync.stored_records where collection_id = {ID.format(SMALL)}", SMALLS),
        ("sync.stored_records where repo_id = 7", BELIEVED_RECORDS / BELIEVED_REPOS),
        ("sync.repos", BELIEVED_REPOS),
        ("sync.heads", BELIEVED_REPOS),
        ("sync.changes", BELIEVED_CHANGES),
    ],
)
def test_the_planner_believes_in_the_volume(service: Plans, table: str, rows: float) -> None:
    ids = service.conn.execute("select nsid, collection_id from sync.collections").fetchall()
    for row in ids:
        table = table.replace(ID.format(row["nsid"]), str(row["collection_id"]))
    told = service.conn.execute(f"explain (format json) select from {table}".encode()).fetchone()
    assert told is not None
    assert told["QUERY PLAN"][0]["Plan"]["Plan Rows"] == pytest.approx(rows, rel=0.03)


@pytest.mark.parametrize(
    "query",
    [
        "select * from sync.records where rkey = 'r7'",
        "select * from sync_views.posts where length(value_did) = 7",
        "select * from sync_views.posts where not flag",
    ],
)
def test_what_has_no_index_is_a_long_read(reader: Plans, query: str) -> None:
    (plan,) = reader.of(query)
    assert long_reads(plan)
    assert long_work(plan)


def test_an_order_that_does_not_pass_the_barrier_is_long_work(reader: Plans) -> None:
    (plan,) = reader.of("select * from sync_views.posts order by created_at desc limit 50")
    assert any(work.startswith("Sort of") for work in long_work(plan))


# What apps read ---------------------------------------------------------------------------------

DID = "did:web:r9.test"
HIGH, HIGHER = datetime(2022, 4, 12, 23, tzinfo=UTC), datetime(2022, 4, 13, tzinfo=UTC)
CURSOR = f"{HIGH.timestamp():.0f}000000.77.r1"
POSTS_WHERE = "select * from sync_views.posts where "
EXACT: list[tuple[str, list[Any]]] = [
    ("select * from sync.records where did = %s", [DID]),
    ("select * from sync.records where did = any(%s)", [[DID, "did:web:r8.test"]]),
    ("select * from sync.records where did = %s and collection = %s", [DID, POST]),
    (("select * from sync.records where did = %s and collection = %s and rkey > %s"
      " order by rkey limit %s"), [DID, POST, "r8", PAGE]),
    (POSTS_WHERE + "did = %s", [DID]),
    (POSTS_WHERE + "did = %s and rkey = %s", [DID, "r7"]),
    ("select * from sync_views.newest where did = %s", [DID]),
    ("select * from sync_views.latest where did = %s", [DID]),
    ("select * from sync.get_record(%s)", [f"at://{DID}/{POST}/r8"]),
    ("select * from sync.get_record(%s)", [f"at://r9.test/{POST}/r8"]),
    ("select * from sync.records where did = %s and collection = %s and rkey = %s",
     [DID, POST, "r8"]),
    (POSTS_WHERE + "value_did = %s", [DID]),
    (POSTS_WHERE + "number = %s", [7]),
    (POSTS_WHERE + "number = any(%s)", [[7, 8]]),
    (POSTS_WHERE + "flag", []),
    ("select * from sync_views.newest order by indexed_at desc limit 50", []),
    ("select * from sync_views.newest limit 50", []),
    ("select * from sync_views.latest order by created_at desc limit 50", []),
    ("select * from sync.list_records(%s)", [POST]),
    ("select * from sync.list_records(%s, null, %s)", [POST, PAGE]),
    ("select * from sync.list_records(%s, %s, %s)", [POST, CURSOR, PAGE]),
    ("select * from sync.list_records(%s, null, %s)", [SMALL, PAGE]),
    (("select v.* from sync.list_records(%s, null, %s) l cross join lateral"
      " (select * from sync_views.posts v where v.did = l.did and v.rkey = l.rkey offset 0) v"),
     [POST, PAGE]),
    ("select * from sync_views.small", []),
    ("select count(*) from sync_views.small", []),
    ("select * from sync_views.small where number > %s", [995]),
    ("select * from sync_views.small order by indexed_at desc limit %s", [PAGE]),
    ("select * from sync.change_log where change_id > %s limit 50", [CHANGES // 2]),
]  # fmt: skip
# How much these bring is in their values: without them a third of all is expected.
RANGES: list[tuple[str, list[Any]]] = [
    (POSTS_WHERE + "indexed_at > %s", [HIGH]),
    (POSTS_WHERE + "indexed_at > %s order by indexed_at desc limit %s", [HIGH, PAGE]),
    (POSTS_WHERE + "created_at > %s", [HIGH]),
    (POSTS_WHERE + "created_at between %s and %s", [HIGH, HIGHER]),
    (POSTS_WHERE + "created_at > %s order by created_at desc limit %s", [HIGH, PAGE]),
    (POSTS_WHERE + "flag = %s", [True]),
]  # fmt: skip
ORDERED: list[tuple[str, list[Any]]] = [
    ("select * from sync_views.newest order by indexed_at desc limit %s", [PAGE]),
    ("select * from sync_views.newest where indexed_at < %s order by indexed_at desc limit %s",
     [HIGH, PAGE]),
    ("select * from sync_views.latest order by created_at desc limit %s", [PAGE]),
    ("select * from sync_views.latest where created_at < %s order by created_at desc limit %s",
     [HIGH, PAGE]),
    (("select * from sync_views.latest where created_at between %s and %s"
      " order by created_at desc limit %s"), [HIGH, HIGHER, PAGE]),
]  # fmt: skip


@pytest.mark.parametrize(("query", "arguments"), EXACT)
def test_a_read_path_is_short(reader: Plans, query: str, arguments: Sequence[Any]) -> None:
    for plan in reader.of(query, *arguments):
        assert long_reads(plan) + long_work(plan) == [], plan


@pytest.mark.parametrize("service", [mode for mode in MODES if mode != "generic"], indirect=True)
@pytest.mark.parametrize(("query", "arguments"), RANGES)
def test_a_range_is_as_short_as_its_values_say(
    reader: Plans, query: str, arguments: Sequence[Any]
) -> None:
    """No session plans without them, unless it is told to: then it may read the collection."""
    for plan in reader.of(query, *arguments):
        assert long_reads(plan) + long_work(plan) == [], plan


@pytest.mark.parametrize(("query", "arguments"), ORDERED)
def test_a_view_with_an_order_is_read_to_where_the_limit_is(
    reader: Plans, query: str, arguments: Sequence[Any]
) -> None:
    """Also by a plan that does not know where that is, and is wrong about all else."""
    for plan in reader.of(query, *arguments):
        assert long_reads(plan, RECORDS_ALONE) == [], plan
        if reader.mode != "generic":
            assert long_reads(plan) + long_work(plan) == [], plan


@pytest.mark.parametrize("query", [query for query, _ in EXACT if "limit 50" in query])
def test_no_worker_is_started_for_a_page(reader: Plans, query: str) -> None:
    """Several would be ready later than the page is."""
    arguments = [CHANGES // 2] if "%s" in query else []
    for plan in reader.of(query, *arguments):
        assert not [step for step in steps(plan) if step["Node Type"].startswith("Gather")]


# What reads the log -----------------------------------------------------------------------------

PLACES = {
    "the walk": f"frontier = {REPOS // 2}, position = sync_priv.log_head()",
    "the log": "frontier = null, position = sync_priv.log_head() - 20000",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "query",
    [
        "select * from sync.read_changes('all', 100)",
        "select * from sync.read_changes('small', 100)",
        "select * from sync.run_projection('all_kept', 100)",
        "select * from sync.run_projection('small_kept', 100)",
    ],
)
def test_a_batch_reads_little_more_than_it_delivers(service: Plans, place: str, query: str) -> None:
    with service.conn.transaction(force_rollback=True):
        service.conn.execute(f"update sync_priv.consumer_shards set {PLACES[place]}".encode())
        plans = service.of(query)
        assert any("stored_records" in str(p) or "changes_0" in str(p) for p in plans)
        assert [read for plan in plans for read in long_reads(plan)] == []


def test_a_rebuild_pages_through_the_records(service: Plans) -> None:
    service.seen.clear()
    with service.conn.transaction(force_rollback=True):
        service.conn.execute("select sync.rebuild_projection('small_kept')")
    assert len(service.seen) > REPOS
    assert [read for plan in service.seen for read in long_reads(plan)] == []
