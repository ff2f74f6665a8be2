"""The files in docs/examples/tenants: two tenants, and neither finds anything of the other."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sync.database import connect_sync
from sync.schema import upgrade
from tests.acceptance.tenant_house import (
    DIDS,
    PAGE,
    REPOS,
    SECRETS,
    SEEN,
    House,
    block,
    expected,
    open_house,
    own_reader,
    read_all,
    seen,
)
from tests.postgres import Server
from tests.sql.driver import LIKE, POST, did
from tests.sql.logins import sqlstate_of
from tests.sql.readers import Reader, World

DENIED = "42501"
NOT_YOURS = "SY302"


@pytest.fixture
def house(postgres: Server) -> Iterator[House]:
    """Return a database with tenants red and blue, five repos, and what nobody may see."""
    with open_house(postgres) as house:
        yield house


@pytest.mark.parametrize("tenant", DIDS)
def test_each_tenant_sees_its_own_through_views(house: House, tenant: str) -> None:
    with house.enter(tenant) as conn:
        assert seen(conn) == expected(tenant)
        posts = conn.execute("select did, rkey from app.posts").fetchall()
        assert {(row["did"], row["rkey"]) for row in posts} == {
            (who, rkey) for who, collection, rkey in expected(tenant) if collection == POST
        }
        dids = conn.execute("select did from app.tenant_dids").fetchall()
        assert {row["did"] for row in dids} == {did(n) for n in [*DIDS[tenant], 4]}
        assert conn.execute("select tenant from app.tenants").fetchall() == [{"tenant": tenant}]


def test_the_operator_and_a_stranger_to_the_tenants_see_nothing(house: House) -> None:
    """Neither is in the list; an operator has sync.records for that."""
    with connect_sync(house.url, name="test") as conn:
        assert seen(conn) == set()


def test_another_login_of_a_tenant_is_that_tenant(house: House) -> None:
    make, join, become = block("sql worker").splitlines()
    with connect_sync(house.url, name="test", autocommit=True) as conn:
        conn.execute(make.replace("choose one", "secret").encode())
        conn.execute(join.encode())
        with house.enter("red_worker") as worker:
            assert seen(worker) == set()
        conn.execute(become.encode())
    with house.enter("red_worker") as worker:
        assert seen(worker) == expected("red")
        read_all(own_reader(worker, "posts"))
    with house.enter("red") as tenant:
        assert sqlstate_of(tenant, "select * from sync.read_changes('red/posts')") is None


def test_an_upgrade_takes_nothing_away(house: House) -> None:
    with house.enter("red") as conn:
        own_reader(conn, "posts")
    upgrade(house.url)
    with house.enter("red") as conn:
        assert seen(conn) == expected("red")
        reader = Reader(conn, "red/posts")
        read_all(reader)
        assert set(reader.state) == expected("red")
        conn.execute("select app.ask_for(%s)", [[did(2)]])
        assert conn.execute("select created_at from app.posts").rowcount == 3


def test_a_policy_on_a_table_of_ours_protects_nothing(house: House) -> None:
    """Why the page says to leave it."""
    with psycopg.connect(house.server.admin_url(house.url.rpartition("/")[2])) as admin:
        admin.execute("alter table sync.stored_records enable row level security")
    with house.enter("red") as conn:
        assert seen(conn) == expected("red")


def test_a_consumer_that_is_made_while_its_tenant_leaves_goes_too(house: House) -> None:
    with house.enter("red") as making, house.enter("red") as leaving:
        own_reader(making, "late")
        leaving.execute("set lock_timeout = '50ms'")
        assert sqlstate_of(leaving, f"select app.leave('{{{did(1)}}}')") == "55P03"
        making.commit()
        leaving.execute("select app.leave(%s)", [[did(1)]])
        leaving.commit()
        assert making.execute("select name from app.consumer_status").fetchall() == []


@pytest.mark.rule("AC-01")
@pytest.mark.parametrize("tenant", DIDS)
def test_a_consumer_delivers_its_tenants_records(house: House, tenant: str) -> None:
    with house.enter(tenant) as conn, connect_sync(house.url, name="test") as writer:
        reader = own_reader(conn, "all")
        read_all(reader)
        assert set(reader.state) == expected(tenant)
        conn.commit()
        world = World(writer, repos=REPOS)
        for number in range(REPOS):
            world.put(number, f"new{number}")
        world.remove(1, "post-1")
        world.take_down(0)
        writer.execute("select sync.untrack_collections('{*}')")
        writer.commit()
        rows = read_all(reader)
        assert set(reader.state) == seen(conn)
        assert {row["did"] for row in rows} <= {None, *(did(n) for n in [*DIDS[tenant], 4])}
        assert not {row["rkey"] for row in rows} & {*SECRETS, "new3", "new4"}


def test_a_replay_brings_nothing_of_others(house: House) -> None:
    with house.enter("red") as conn:
        reader = own_reader(conn, "mine")
        read_all(reader)
        conn.execute(
            "select sync.replay(%s, %s, %s)",
            [reader.name, [did(n) for n in range(REPOS)], [POST, LIKE]],
        )
        read_all(reader)
        assert set(reader.state) == expected("red")


def test_a_tenant_has_no_use_of_anothers_consumer(house: House) -> None:
    with house.enter("blue") as conn:
        own_reader(conn, "posts")
        conn.commit()
    with house.enter("red") as conn:
        for call in ("read_changes", "replay", "drop_consumer"):
            assert sqlstate_of(conn, f"select sync.{call}('blue/posts')") == NOT_YOURS
        assert conn.execute("select name from app.consumer_status").fetchall() == []
        assert sqlstate_of(conn, "select app.create_consumer('posts')") is None


def test_who_leaves_loses_the_records_and_the_consumers(house: House) -> None:
    with house.enter("red") as conn:
        own_reader(conn, "posts")
        conn.execute("select app.leave(%s)", [[did(1)]])
        conn.commit()
        assert seen(conn) == {one for one in expected("red") if one[0] != did(1)}
        assert sqlstate_of(conn, "select * from sync.read_changes('red/posts')") == NOT_YOURS
    with house.enter("blue") as conn:
        assert seen(conn) == expected("blue")


def test_the_last_to_leave_untracks(house: House) -> None:
    def tracked() -> set[str]:
        with connect_sync(house.url, name="test") as conn:
            rows = conn.execute(
                "select did from sync.repo_status where tracked_by is not null"
            ).fetchall()
            return {row["did"] for row in rows}

    before = tracked()
    everything = [did(n) for n in range(REPOS)]
    for tenant, gone in (("red", {did(0)}), ("blue", {did(0), did(1), did(2), did(4)})):
        with house.enter(tenant) as conn:
            conn.execute("select app.leave(%s)", [everything])
        assert tracked() == before - gone


def test_who_asks_while_another_leaves_keeps_the_repo(house: House) -> None:
    with house.enter("red") as leaving, house.enter("blue") as asking:
        asking.execute("select app.ask_for(%s)", [[did(0)]])
        leaving.execute("set lock_timeout = '50ms'")
        assert sqlstate_of(leaving, f"select app.leave('{{{did(0)}}}')") == "55P03"
        asking.commit()
        leaving.execute("select app.leave(%s)", [[did(0)]])
        leaving.commit()
        assert (did(0), POST, "post-0") in seen(asking)


REFUSED = [
    *[
        f"select from {relation}"
        for relation in (
            "sync.records", "sync.change_log", "sync.repos", "sync.stored_records", "sync.changes",
            "sync.consumers", "sync.consumer_status", "sync.repo_status", "sync_views.posts",
            "sync_priv.visible_repos", "blue.secrets",
        )
    ],
    "select sync.create_consumer('mine')",
    "select * from sync.list_records('app.bsky.feed.post')",
    "select * from sync.get_record('at://did:plc:x/app.bsky.feed.post/k')",
    "select sync.track_repos('{did:plc:x}')",
    "insert into app.tenant_dids values ('red', 'did:plc:x')",
    "delete from app.tenant_dids",
    "update app.tenants set collections = '{app.bsky.feed.like}'",
    "insert into app.tenants values ('green', '{a.b.c}')",
    "insert into app.notes (tenant, did, rkey, note) values ('blue', 'd', 'r', 'forged')",
    "update app.notes set tenant = 'blue'",
    "alter table app.notes disable row level security",
    "create policy more on app.notes using (true)",
    "create or replace view app.records as select * from sync.records",
    "alter view app.records set (security_barrier = false)",
    "create table app.mine ()",
    "create table public.mine ()",
    "set role blue",
    "set role app_owner",
    "set role sync_reader",
    "create function red.f(text) returns boolean language sql leakproof return true",
]  # fmt: skip


def test_a_tenant_is_refused_what_is_not_its_own(house: House) -> None:
    with house.enter("blue") as conn:
        conn.execute("create table blue.secrets (secret text)")
        conn.commit()
    with house.enter("red") as conn:
        conn.execute("insert into app.notes values (default, 'd', 'r', 'own')")
        told = {statement: sqlstate_of(conn, statement) for statement in REFUSED}
        assert {statement for statement, code in told.items() if code != DENIED} == set()


def test_a_shared_table_shows_each_its_own(house: House) -> None:
    for tenant in DIDS:
        with house.enter(tenant) as conn:
            conn.execute(
                "insert into app.notes (did, rkey, note) values (%s, 'post-1', %s)",
                [did(1), tenant],
            )
    for tenant in DIDS:
        with house.enter(tenant) as conn:
            for source in ("app.notes", "app.noted_posts"):
                rows = conn.execute(f"select did, note from {source}".encode()).fetchall()
                assert rows == [{"did": did(1), "note": tenant}]
            assert conn.execute("update app.notes set note = 'x'").rowcount == 1
            assert conn.execute("delete from app.notes").rowcount == 1


SPYING = [
    "select from {source} r where red.spy(r.rkey)",
    "select from {source} r where red.spy(r.did || ' ' || r.rkey)",
    "select from {source} r where red.spy(r::text)",
    "select from {source} r where red.spy(r.rkey) or r.rkey = 'a'",
    "select from {source} r where r.rkey operator(red.=?) 'a'",
    "select from pg_class c left join {source} r on red.spy(r.rkey) where c.relname = 'pg_class'",
    "select from {source} r order by red.spy(r.rkey)",
    "select from {source} r where case when r.rkey >= '' then red.spy(r.rkey) end",
    "explain select from {source} r where r.rkey operator(red.=?) 'a'",
]
PLANS = ("", "enable_hashjoin", "enable_nestloop", "enable_indexscan", "enable_seqscan")


@pytest.mark.parametrize(
    "source", ["app.records", "app.posts", "app.tenant_dids", "app.notes", "app.noted_posts"]
)
def test_a_leaky_function_sees_nothing_more(house: House, source: str) -> None:
    with house.enter("blue") as conn:
        conn.execute("insert into app.notes values (default, %s, 'blues', 'x')", [did(2)])
    with psycopg.connect(house.server.admin_url(house.url.rpartition("/")[2])) as admin:
        admin.execute("analyze")
    with house.enter("red") as conn:
        said: list[str] = []
        conn.execute("insert into app.notes values (default, %s, 'post-1', 'x')", [did(1)])
        conn.execute(
            "create function red.spy(text) returns boolean language plpgsql cost 0.0001 as"
            " $$ begin raise notice 'saw %', $1; return true; end $$"
        )
        conn.execute(
            "create function red.eq(text, text) returns boolean language plpgsql immutable"
            " cost 0.0001 as $$ begin raise notice 'saw %', $1; return $1 = $2; end $$"
        )
        conn.execute(
            "create operator red.=? (function = red.eq, leftarg = text, rightarg = text,"
            " restrict = scalarltsel, join = eqjoinsel)"
        )
        conn.add_notice_handler(lambda note: said.append(note.message_primary or ""))
        column = "did" if source == "app.tenant_dids" else "rkey"
        for query, setting in itertools.product(SPYING, PLANS):
            said.clear()
            if setting:
                conn.execute(f"set local {setting} = off".encode())
            text = query.format(source=source).replace("r.rkey", f"r.{column}")
            conn.execute(text.encode())
            conn.execute("reset all")
            told = "\n".join(said)
            others = [did(2), did(3), "like-", "post-2", "blues", *SECRETS]
            assert [one for one in others if one in told] == [], text
            assert "saw" in told or query.startswith("explain"), text


def test_every_view_for_tenants_is_a_barrier_or_binds_who_asks(house: House) -> None:
    with connect_sync(house.url, name="test") as conn:
        rows = conn.execute(
            "select relname, reloptions from pg_class"
            " where relnamespace = 'app'::regnamespace and relkind = 'v'"
        ).fetchall()
    options = {row["relname"]: row["reloptions"] for row in rows}
    assert options.pop("noted_posts") == ["security_invoker=true"]
    assert set(options) == {"records", "posts", "consumer_status"}
    assert all(each == ["security_barrier=true"] for each in options.values())


@pytest.mark.parametrize("barrier", ["", "with (security_barrier)"])
def test_a_view_over_ours_needs_a_barrier_of_its_own(house: House, barrier: str) -> None:
    """What the page says of a condition that passes no barrier."""
    with house.enter("red") as conn:
        conn.execute(
            "create function red.spy(text) returns boolean language plpgsql cost 0.0001 as"
            " $$ begin raise notice 'saw %', $1; return true; end $$"
        )
        conn.commit()
    with connect_sync(house.url, name="test", autocommit=True) as conn:
        conn.execute(
            f"""
            set role app_owner;
            create view app.some {barrier} as
              select rkey from sync.records where coalesce(value ->> 'text', rkey) <> 'post-2';
            grant select on app.some to tenants
            """.encode()
        )
    with house.enter("red") as conn:
        said: list[str] = []
        conn.add_notice_handler(lambda note: said.append(note.message_primary or ""))
        conn.execute("select from app.some where red.spy(rkey)")
    assert ("saw post-2" in said) == (not barrier)
    assert "saw post-1" in said


VOLUME = """
    set session_replication_role = replica;
    insert into sync.repos (did, tracked_by, sync_state, filter_generation, next_fetch_at,
                            created_at, updated_at)
    select 'did:web:r' || n || '.test', 'did', 'synchronized', 1, '-infinity', now(), now()
      from generate_series(1, 20000) n;
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, 'k' || n, '\\x01711220' || sha256(''), '3k', '{}'
      from sync.repos r, sync.collections c, generate_series(1, 5) n
        on conflict do nothing;
    set session_replication_role = origin;
    analyze;
"""


READING = [
    "select * from app.records",
    f"select * from app.records where collection = '{POST}' and rkey = 'post-1'",
    "select * from app.posts",
    f"select * from app.posts where did = '{did(1)}'",
    "select * from app.noted_posts",
]


def test_what_a_tenant_reads_is_looked_up_by_key(house: House) -> None:
    name = house.url.rpartition("/")[2]
    with psycopg.connect(house.server.admin_url(name), autocommit=True) as admin:
        admin.execute(VOLUME.encode())
    with house.enter("red") as conn:
        conn.execute("insert into app.notes values (default, %s, 'post-1', 'x')", [did(1)])
        for query in READING:
            rows = conn.execute(f"explain (analyze, timing off) {query}".encode()).fetchall()
            plan = "\n".join(row["QUERY PLAN"] for row in rows)
            assert "stored_records_pkey" in plan, plan
            assert "repos_did_key" in plan, plan
            assert not re.search(r"Seq Scan on (stored_records|repos)", plan), plan


def test_the_page_runs_as_a_tenant(house: House, tmp_path: Path) -> None:
    with house.enter("red") as conn:
        conn.autocommit = True
        for text in re.findall(r"^```sql red\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            conn.execute(text.encode())
    script = block("sh backup")
    house.shell(f"export TENANT_URL='{house.url_of('red')}'\n{script}", tmp_path, house.url)
    dumped = (tmp_path / "red.sql").read_text("utf-8")
    assert "CREATE TABLE red.posts" in dumped
    assert "read this" in (tmp_path / "notes.sql").read_text("utf-8")
    lines = (tmp_path / "records.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + len(SEEN["red"])


def test_the_operators_dump_has_the_rows_of_every_tenant(house: House, tmp_path: Path) -> None:
    for tenant in DIDS:
        with house.enter(tenant) as conn:
            conn.execute("insert into app.notes values (default, 'd', 'r', %s)", [f"of {tenant}"])
            conn.execute(f"create table {tenant}.own as select 'secret of {tenant}' as x".encode())
    house.shell('pg_dump --file=all.sql "$STANDPIPE_DATABASE_URL"', tmp_path, house.url)
    dumped = (tmp_path / "all.sql").read_text("utf-8")
    for tenant in DIDS:
        assert f"of {tenant}" in dumped
        assert f"secret of {tenant}" in dumped


def test_a_tenant_goes(house: House) -> None:
    with house.enter("red") as conn:
        own_reader(conn, "posts")
        conn.execute("create table red.posts ()")
        conn.execute("insert into app.notes values (default, 'd', 'r', 'x')")
    with connect_sync(house.url, name="test", autocommit=True) as conn:
        conn.execute(block("sql remove").encode())
        rows = conn.execute(
            "select 1 from pg_roles where rolname = 'red'"
            " union all select 1 from sync.consumer_status where owner_name = 'red'"
            " union all select 1 from app.notes where tenant = 'red'"
        ).fetchall()
        assert rows == []
