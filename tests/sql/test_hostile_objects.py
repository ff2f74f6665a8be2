"""Objects that somebody else made, named so that ours might be mistaken for them or they for ours.

A function that runs with its owner's rights must find nothing of its caller, and neither may an
upgrade or the service: whoever may create in the schema `public` could otherwise offer a function
that fits a call better than PostgreSQL's own.
"""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sync.cli.context import open_session
from sync.config import Settings
from sync.database import SEARCH_PATH, connect
from sync.errors import SchemaError
from sync.schema import upgrade
from tests.postgres import Server
from tests.sql.driver import POST, Driver, Event, Op, did
from tests.sql.logins import House, open_house
from tests.sql.readers import Session

# Each fits calls of ours better than the variadic one of PostgreSQL.
FORMATS = ("text, text", "text, name", "text, int", "text, bigint", "text, regprocedure",
           "text, text, int", "text, text, bigint", "text, name, regclass")  # fmt: skip


@pytest.fixture(scope="module")
def house(postgres: Server) -> Iterator[House]:
    with open_house(postgres) as house:
        yield house


# The schema public ------------------------------------------------------------------------------


@pytest.fixture
def trapped(house: House) -> Iterator[House]:
    """Let an app offer functions in `public` that write down who ran them."""
    house.administer("grant create on schema public to first")
    with house.enter("first") as first:
        first.execute("create table public.caught (by_whom text)")
        first.execute("grant insert on public.caught to public")
        for arguments in FORMATS:
            first.execute(
                f"create function public.format({arguments}) returns text language plpgsql as $$"
                " begin insert into public.caught values (current_user); return 'select 1'; end"
                " $$".encode()
            )
        first.commit()
    yield house
    for statement in ("drop table public.caught", "revoke create on schema public from first"):
        house.administer(statement)
    for arguments in FORMATS:
        house.administer(f"drop function public.format({arguments}) cascade")
    upgrade(house.url("standpipe"))


def caught(house: House) -> set[str]:
    with house.enter("first") as first:
        rows = first.execute("select by_whom from public.caught").fetchall()
    return {row["by_whom"] for row in rows}


def test_the_trap_works(trapped: House) -> None:
    with trapped.enter("standpipe") as conn:
        conn.execute("select format('%s', 'pg_class'::regclass::text)")
        conn.commit()
    assert caught(trapped) == {"standpipe"}


def test_an_upgrade_runs_no_function_of_the_schema_public(trapped: House) -> None:
    upgrade(trapped.url("standpipe"))
    with trapped.enter("standpipe") as conn:
        for view in ("status", "log_status", "repo_status", "consumer_status", "records"):
            conn.execute(f"select * from sync.{view}".encode())
        conn.commit()
        ours = conn.execute(
            """
            select pg_describe_object(d.classid, d.objid, d.objsubid) as what
              from pg_depend d
             where d.refclassid = 'pg_proc'::regclass
               and d.refobjid in (select p.oid from pg_proc p
                                   where p.pronamespace = 'public'::regnamespace)
            """
        ).fetchall()
    assert ours == []
    assert caught(trapped) == set()


async def test_neither_the_service_nor_a_command_looks_into_the_schema_public(
    clone: str, tmp_path: Path
) -> None:
    service = await connect(clone, name="test", role="sync_ingester")
    try:
        assert await service.fetchval("show search_path") == SEARCH_PATH
    finally:
        await service.close()
    settings = Settings(database_url=f"{clone}?options=-c%20search_path%3Dpublic")
    with open_session(settings, name="test") as session:
        row = session.execute("select current_schemas(true)::text[] as found").fetchone()
        assert row == {"found": ["pg_catalog"]}


@pytest.mark.parametrize("schema", ["sync_priv", "sync"])
def test_an_upgrade_refuses_a_schema_that_somebody_else_made(
    empty_database: str, schema: str
) -> None:
    """Its owner could drop our tables, and put his own in their place."""
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(f"create schema {schema}".encode())
        conn.execute(f"grant all on schema {schema} to public".encode())
    with pytest.raises(SchemaError, match=f"schema {schema} belongs to standpipe"):
        upgrade(empty_database)


# The caller's own objects -----------------------------------------------------------------------

# What an ingest connection has in pg_temp by right.
STAGE = ("stage_events", "stage_repos", "stage_records", "first_loads", "diff", "walk")
TYPES = ("text", "int4", "int8", "bool", "bytea", "jsonb", "timestamptz", "name", "interval",
         "xid8", "oid")  # fmt: skip


def shadow(conn: Session) -> None:
    """Make a temporary object for every name that our functions may look up, each a trap.

    A trap goes off when it runs with other rights than those of whoever is logged in.
    """
    conn.execute(
        "create function pg_temp.trap(anyelement) returns boolean language plpgsql as $$ begin"
        " if current_user <> session_user then raise 'ran as %', current_user; end if;"
        " return true; end $$"
    )
    names = conn.execute(
        """
        select distinct c.relname as name from pg_class c
          join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('sync', 'sync_priv', 'sync_stage') and c.relkind in ('r', 'p', 'v')
        union select unnest(array['new_rows', 'old_rows', 'pg_class', 'pg_roles', 'pg_proc'])
        """
    ).fetchall()
    for name in {row["name"] for row in names} - set(STAGE):
        conn.execute(f"create temporary table {name} (trapped int)".encode())
    for name in TYPES:
        base = f"create domain pg_temp.{name} as pg_catalog.{name}"
        conn.execute(f"{base} check (pg_temp.trap(value))".encode())
    # Ahead of everything, as far as a caller can say so.
    conn.execute("set search_path = pg_temp, pg_catalog")


BOTH_SHARDS = """
    select kind, rkey from sync.read_changes('mine', 10, 0) union all
    select kind, rkey from sync.read_changes('mine', 10, 1)
"""
READING = [
    "select sync.create_consumer('mine', array['app.bsky.*'], null, 'beginning', 2)",
    BOTH_SHARDS,
    f"select sync.replay('mine', array['{did(0)}'], array['{POST}'])",
    BOTH_SHARDS,
    f"select rkey, cursor from sync.list_records('{POST}')",
    f"select rkey from sync.get_record('at://{did(0)}/{POST}/a')",
    "select sync.position_id(position) from sync.change_log order by change_id limit 1",
    "select name, is_at_rest from sync.consumer_status order by name, shard",
    "select sync.drop_consumer('mine')",
]  # fmt: skip


def read_everything(conn: Session) -> list[object]:
    return [conn.execute(statement.encode()).fetchall() for statement in READING]


def test_what_a_reader_calls_finds_none_of_his_objects(house: House) -> None:
    with house.enter("second") as conn:
        expected = read_everything(conn)
    with house.enter("second") as conn:
        shadow(conn)
        assert read_everything(conn) == expected
    assert [{"kind": "create", "rkey": "a"}] in expected


def test_what_the_service_calls_finds_none_of_the_session_s_objects(house: House) -> None:
    with house.enter("standpipe") as operator:
        operator.execute("select sync.track_repos(array[%s])", [did(9)])
        operator.commit()
    with house.enter("ingester") as conn:
        conn.autocommit = True
        lane = Driver(conn)
        lane.apply()
        shadow(conn)
        # Our driver is no part of the trap: its own statements mean the built-in types.
        conn.execute("set search_path = pg_catalog, pg_temp")
        lane.reconcile(lane.claim(9), {"a": "one"}, at=10, data="t10")
        ops = [Op("create", "b", "two")]
        commit = Event(did(9), rev=11, since=10, before="t10", data="t11", ops=ops)
        assert lane.apply(commit) == {"applied": 1}
        lane.maintain()
    with house.enter("second") as conn:
        rows = conn.execute("select rkey from sync.records where did = %s", [did(9)]).fetchall()
    assert sorted(row["rkey"] for row in rows) == ["a", "b"]
