"""Searches and databases: without pgvector, upgraded, restored, and at volume."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from sync.schema import prepare_roles, upgrade
from tests.embedders import DIMENSIONS, embed
from tests.postgres import TEMPLATE, Server
from tests.sql.driver import POST, did
from tests.sql.readers import Session, World
from tests.sql.searching import Searching, index_statements, refusal

MISSING = "SY601"


@pytest.fixture
def own_database(postgres: Server) -> Iterator[str]:
    with postgres.database(template=TEMPLATE) as name:
        yield postgres.service_url(name)


@pytest.fixture
def search(pgvector: None, session: Callable[..., Session]) -> Searching:
    """Return a search in a database that others see; there is no record yet."""
    conn = session()
    with conn.transaction():
        world = World(conn)
    found = Searching(world)
    found.enable()
    return found


def test_without_pgvector_it_says_who_can_help(own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as conn:
        name = conn.info.dbname
        assert conn.execute("select sync_priv.vector_schema()").fetchone() == (None,)
        conn.execute(f"revoke create on database {name} from sync_owner".encode())
        conn.execute("set role sync_owner")
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select sync.enable_search('posts', %s, '1', 'http://x/', 3)", [POST])
        assert caught.value.sqlstate == MISSING
        assert 'superuser run "create extension vector"' in str(caught.value)
        assert conn.execute("select from sync.list_searches()").fetchall() == []
        assert conn.execute("select from sync.index_steps()").fetchall() == []
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select * from sync.search('posts', '{1,2,3}')")
        assert caught.value.sqlstate == "SY602"
        conn.execute("reset role")
        conn.execute(f"grant create on database {name} to sync_owner".encode())
    upgrade(own_database)


def test_a_search_that_lost_pgvector_says_so_and_may_go(clone: str, search: Searching) -> None:
    conn = search.db
    for statement in ("drop extension vector cascade", "create extension vector schema public"):
        conn.execute(statement)
        upgrade(clone)
        found = refusal(conn, "select * from sync.search('posts', %s::real[])", embed("a"))
        assert found.sqlstate == MISSING
    conn.execute("select sync.disable_search('posts')")
    search.enable()
    assert search.find("boat") == []


def test_an_upgrade_makes_the_functions_anew_and_keeps_the_rest(
    clone: str, search: Searching
) -> None:
    search.write(0, "a", '{"text": "a small boat"}')
    search.embed_all()
    search.db.execute("drop function sync_search.posts__find")
    upgrade(clone)
    assert search.find("boat") == ["a"]
    search.write(0, "b", '{"text": "a ship"}')
    search.embed_all()
    assert set(search.find("ship")) == {"a", "b"}


@pytest.mark.parametrize("maker", ["the login", "a superuser"])
def test_a_dump_is_restored_by_the_login_of_the_service(
    clone: str, search: Searching, postgres: Server, tmp_path: Path, maker: str
) -> None:
    search.write(0, "a", '{"text": "a small boat"}')
    search.embed_all()
    dump, entries = tmp_path / "dump", tmp_path / "list"
    program = postgres.binaries.program
    subprocess.run([program("pg_dump"), "--format=custom", f"--file={dump}", clone], check=True)
    told = subprocess.run(
        [program("pg_restore"), "--list", dump], check=True, capture_output=True, text=True
    )
    lines = told.stdout.splitlines(keepends=True)
    with postgres.database() as name:
        restored = postgres.service_url(name)
        prepare_roles(restored)
        if maker == "a superuser":
            lines = [line for line in lines if "EXTENSION" not in line]
            with psycopg.connect(postgres.admin_url(name), autocommit=True) as admin:
                admin.execute("create extension vector with schema public")
        entries.write_text("".join(lines))
        options = ["--exit-on-error", f"--use-list={entries}", f"--dbname={restored}"]
        subprocess.run([program("pg_restore"), *options, dump], check=True)
        upgrade(restored)
        with psycopg.connect(restored) as found:
            statement = "select rkey from sync.search('posts', %s::real[])"
            assert found.execute(statement, [embed("boat")]).fetchall() == [("a",)]


def test_at_volume_the_index_finds(search: Searching) -> None:
    conn = search.db
    with conn.transaction():
        conn.execute("set local sync.self_logged = 'on'")
        conn.execute(
            """
            insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
            select r.repo_id, c.collection_id, 'r' || n, '\\x01711220' || sha256(n::text::bytea),
                   '3kaaaaaaaaaaa', '{}'
              from generate_series(1, 20000) n, sync.collections c, sync.repos r
             where c.nsid = %s and r.did = %s
            """,
            [POST, did(0)],
        )
        conn.execute(
            """
            insert into sync_search.posts (did, rkey, text, embedding)
            select %s, 'r' || n, 'x', array(select (hashint8(n * 1000 + d) %% 1000)::real
                                              from generate_series(1, %s) d)::public.vector
              from generate_series(1, 20000) n
            """,
            [did(0), DIMENSIONS],
        )
    [statement] = index_statements(conn)
    conn.execute(statement.encode())
    assert index_statements(conn) == []
    conn.execute("analyze")
    plan = explain(conn)
    assert "posts__embedding" in plan, plan
    assert "Sort" not in plan, plan
    rows = search.find("boat", 50)
    assert len(rows) == 50
    with conn.transaction(force_rollback=True):
        conn.execute("set local enable_indexscan = off")
        exact = conn.execute(
            "select rkey from sync_search.posts order by embedding operator(public.<=>) %s::real[]"
            "::public.vector limit 50",
            [embed("boat")],
        ).fetchall()
    assert len(exact) == 50
    # Of these an index finds 32 to 42: its layers are drawn by lot.
    assert len({row["rkey"] for row in exact} & set(rows)) >= 20


def explain(conn: Session) -> str:
    """Return the plan of what finds, with its settings."""
    row = conn.execute(
        "select p.prosrc from pg_proc p where p.oid = 'sync_search.posts__find'::regproc"
    ).fetchone()
    assert row is not None
    numbers = ",".join(map(str, embed("boat")))
    query = row["prosrc"].replace("p_embedding", f"'{{{numbers}}}'::real[]")
    with conn.transaction(force_rollback=True):
        conn.execute("set local enable_seqscan = off; set local jit = off")
        rows = conn.execute(f"explain {query.replace('p_limit', '10')}".encode()).fetchall()
    return "\n".join(str(row["QUERY PLAN"]) for row in rows)
