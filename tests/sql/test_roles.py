"""What each role may do and what it is refused, by real logins.

The statements are in matrix.py; docs/explanation/roles.md says the same in words.
"""

from collections.abc import Iterator

import psycopg
import pytest

from sync.roles import ROLES
from tests.postgres import Server
from tests.sql.logins import House, open_house, sqlstate_of
from tests.sql.matrix import DENIED, MAY, NOT_YOURS, REFUSED
from tests.sql.readers import Session


@pytest.fixture(scope="module")
def house(postgres: Server) -> Iterator[House]:
    """Return a database with a login for every role and hidden records of every kind."""
    with open_house(postgres) as house:
        with house.enter("first") as first:
            first.execute("create table first.notes (note text)")
            first.execute("select sync.create_consumer('firsts')")
            first.commit()
        yield house


# The matrix -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "statement", "sqlstate"),
    [
        (login, statement, sqlstate)
        for login, states in REFUSED.items()
        for sqlstate, statements in states.items()
        for statement in statements
    ],
)
def test_is_refused(house: House, login: str, statement: str, sqlstate: str) -> None:
    with house.enter(login) as conn:
        conn.execute("set sync.self_logged = 'on'")
        if login == "second":
            conn.execute("create table second.notes (note text)")
        assert sqlstate_of(conn, statement) == sqlstate


@pytest.mark.parametrize(
    ("login", "statement"),
    [(login, statement) for login, statements in MAY.items() for statement in statements],
)
def test_is_allowed(house: House, login: str, statement: str) -> None:
    with house.enter(login) as conn:
        if login == "ingester":
            conn.execute("select sync.open_stage()")
        with conn.cursor() as cursor:
            if statement.startswith("copy"):
                with cursor.copy(statement.encode()) as copy:
                    assert list(copy)
            else:
                cursor.execute(statement.encode())


def test_a_stranger_has_no_right_on_anything_of_ours(house: House) -> None:
    """Whatever is there now or comes with a migration."""
    with house.enter("stranger") as conn:
        rows = conn.execute(
            """
            with ours as (
              select n.oid, n.nspname from pg_namespace n where n.nspname like 'sync%%')
            select o.nspname as name from ours o
             where has_schema_privilege(o.oid, 'usage') or has_schema_privilege(o.oid, 'create')
            union all
            select c.oid::regclass::text from pg_class c join ours o on o.oid = c.relnamespace
             where c.relkind in ('r', 'v', 'p', 'm', 'f')
               and (has_table_privilege(c.oid, %s) or has_any_column_privilege(c.oid, %s))
            union all
            select c.oid::regclass::text from pg_class c join ours o on o.oid = c.relnamespace
             where case when c.relkind = 'S'
                        then has_sequence_privilege(c.oid, 'select, usage, update') end
            union all
            select p.oid::regprocedure::text from pg_proc p join ours o on o.oid = p.pronamespace
             where has_function_privilege(p.oid, 'execute')
            """,
            [
                "select, insert, update, delete, truncate, references, trigger",
                "select, insert, update, references",
            ],
        ).fetchall()
    assert rows == []


@pytest.mark.parametrize("login", ["second", "ingester"])
def test_only_their_owner_and_the_replicator_touch_tables(house: House, login: str) -> None:
    """No table, sequence or column of any: all that readers have are views, the service calls."""
    with house.enter(login) as conn:
        rows = conn.execute(
            """
            select c.oid::regclass::text as name from pg_class c
              join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('sync', 'sync_priv', 'sync_stage') and c.relkind in ('r', 'p')
               and (has_table_privilege(
                      c.oid, 'select, insert, update, delete, truncate, references, trigger')
                    or has_any_column_privilege(c.oid, 'select, insert, update, references'))
            """
        ).fetchall()
        assert rows == []


def test_no_right_can_be_passed_on(house: House) -> None:
    """PostgreSQL only warns, so what counts is that the grant had no effect."""
    grants = ("grant select on sync.records to public", "grant usage on schema sync to public",
              "grant execute on function sync.drop_consumer(text) to public")  # fmt: skip
    with house.enter("second") as conn:
        for grant in grants:
            sqlstate = sqlstate_of(conn, grant)
            assert sqlstate in (None, DENIED)
            conn.execute("savepoint before")
            if sqlstate is None:
                conn.execute(grant.encode())
            row = conn.execute(
                "select has_table_privilege('stranger', 'sync.records', 'select')"
                " or has_schema_privilege('stranger', 'sync', 'usage')"
                " or has_function_privilege('stranger', 'sync.drop_consumer(text)', 'execute')"
                " as has_some"
            ).fetchone()
            assert row == {"has_some": False}
            conn.execute("rollback to savepoint before")


@pytest.mark.parametrize("login", ["second", "ingester", "replicator", "stranger"])
@pytest.mark.parametrize("function", ["pg_terminate_backend", "pg_cancel_backend"])
def test_nobody_ends_the_service(house: House, login: str, function: str) -> None:
    with house.enter("standpipe") as service, house.enter(login) as conn:
        pid = service.info.backend_pid
        assert sqlstate_of(conn, f"select {function}({pid})") == DENIED


def test_neither_the_service_nor_a_role_of_ours_is_a_superuser(house: House) -> None:
    with house.enter("standpipe") as conn:
        rows = conn.execute(
            "select rolname from pg_roles where (rolsuper or rolbypassrls) and rolname = any (%s)",
            [["standpipe", *ROLES]],
        ).fetchall()
    assert rows == []


# Whose consumer it is ---------------------------------------------------------------------------


def owner_of(conn: Session, name: str) -> str:
    row = conn.execute(
        "select owner_name from sync.consumer_status where name = %s", [name]
    ).fetchone()
    assert row is not None
    return str(row["owner_name"])


def test_a_consumer_belongs_to_the_login_or_to_what_set_role_chose(house: House) -> None:
    with house.enter("member") as conn:
        conn.execute("select sync.create_consumer('by login')")
        conn.execute("set local role first")
        conn.execute("select sync.create_consumer('by role')")
        assert owner_of(conn, "by login") == "member"
        assert owner_of(conn, "by role") == "first"


def test_a_member_uses_what_its_role_made_but_not_the_other_way_round(house: House) -> None:
    with house.enter("member") as conn:
        conn.execute("select sync.create_consumer('by login')")
        conn.execute("select * from sync.read_changes('firsts')")
        conn.execute("select sync.replay('firsts')")
        conn.execute("set local role first")
        assert sqlstate_of(conn, "select * from sync.read_changes('by login')") == NOT_YOURS
        conn.execute("select sync.drop_consumer('firsts')")


def test_an_operator_s_login_drops_anybody_s_consumer(house: House) -> None:
    with house.enter("standpipe") as conn:
        conn.execute("select sync.drop_consumer('firsts')")


def test_a_function_of_another_app_does_not_lend_its_owner_s_consumers(house: House) -> None:
    """`current_user` is its owner there; what counts is who is logged in."""
    with house.enter("first") as first:
        first.execute(
            "create function first.peek() returns setof text security definer language sql as"
            " $$ select kind from sync.read_changes('firsts') $$"
        )
        first.execute("grant usage on schema first to second")
        first.commit()
    with house.enter("second") as second:
        assert sqlstate_of(second, "select first.peek()") == NOT_YOURS


ROLE_TRICKS = [
    "set local role none",
    "reset role",
    "set local role = 'second'",
    "select set_config('role', 'none', true)",
    "set session authorization default",
]


@pytest.mark.parametrize("trick", ROLE_TRICKS)
def test_whoever_changes_to_itself_is_itself(house: House, trick: str) -> None:
    with house.enter("second") as conn:
        conn.execute(trick.encode())
        conn.execute("select sync.create_consumer('x')")
        assert owner_of(conn, "x") == "second"


def test_a_function_cannot_carry_a_role_that_its_caller_may_not_become(house: House) -> None:
    with house.enter("second") as conn:
        conn.execute(
            "create function second.trick(p_sql text) returns void language plpgsql as"
            " $$ begin execute p_sql; end $$"
        )
        carried = sqlstate_of(
            conn,
            "alter function second.trick set role = 'sync_owner';"
            " select second.trick('select sync.drop_consumer(''firsts'')')",
        )
        assert carried == DENIED


def test_no_role_comes_with_the_connection_or_with_the_login(house: House) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied to set role"):
        psycopg.connect(house.url("second"), options="-c role=sync_owner")
    with house.enter("second") as conn:
        try:
            conn.execute("alter role current_user set role = 'sync_owner'")
            conn.commit()
        except psycopg.errors.InsufficientPrivilege:
            conn.rollback()
    with house.enter("second") as conn:
        assert sqlstate_of(conn, "select sync.drop_consumer('firsts')") == NOT_YOURS
        conn.execute("alter role current_user reset role")
        conn.commit()
