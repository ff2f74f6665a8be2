"""An upgrade is whole or did not happen, may run twice, at once and by a plain login."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from sync.database import connect_sync
from sync.errors import DatabaseUnavailable, SchemaError
from sync.roles import ROLES, bootstrap_roles
from sync.schema import (
    UPGRADE_LOCK,
    code_revision,
    database_revision,
    reload_sql,
    require_current,
    sql_folder,
    upgrade,
    upgrade_older,
)
from tests.postgres import Server
from tests.sql.waiting import (
    PATIENCE_S,
    background,
    wait_until_blocked,
    wait_until_blocking,
)

Session = psycopg.Connection[DictRow]


def session_to(url: str) -> Session:
    return connect_sync(url, name="test")


def test_an_empty_database_is_brought_to_the_code_s_revision(empty_database: str) -> None:
    with session_to(empty_database) as conn:
        assert database_revision(conn) is None
    assert upgrade(empty_database) == code_revision()
    with session_to(empty_database) as conn:
        assert database_revision(conn) == code_revision()
        require_current(conn)


def test_a_second_upgrade_changes_nothing(clone: str) -> None:
    with session_to(clone) as conn:
        before = routines(conn)
    upgrade(clone)
    with session_to(clone) as conn:
        assert routines(conn) == before


def test_a_declared_copy_opens_a_new_log_epoch_and_never_reuses_an_id(clone: str) -> None:
    query = "select log_epoch, last_value from sync_priv.log_state, sync_priv.change_ids"
    with session_to(clone) as conn:
        upgrade(clone)  # a database that was copied from a template has noticed it by itself
        conn.execute("select sync_priv.open_epoch()")
        before = conn.execute(query).fetchone()
        conn.commit()
        upgrade(clone, restored=True)
        after = conn.execute(query).fetchone()
    assert before is not None
    assert after is not None
    assert after["log_epoch"] > before["log_epoch"]
    assert after["last_value"] > before["last_value"]


def test_everything_belongs_to_the_owner_role(clone: str) -> None:
    with session_to(clone) as conn:
        found = conn.execute(
            """
            select distinct r.rolname from pg_class c
            join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
            where n.nspname in ('sync', 'sync_priv', 'sync_stage')
            union
            select r.rolname from pg_proc p
            join pg_namespace n on n.oid = p.pronamespace join pg_roles r on r.oid = p.proowner
            where n.nspname in ('sync', 'sync_priv', 'sync_stage')
            """
        ).fetchall()
    assert found == [{"rolname": "sync_owner"}]


def test_the_four_roles_cannot_log_in_and_the_service_may_become_each(clone: str) -> None:
    with session_to(clone) as conn:
        rows = conn.execute(
            "select rolname, rolcanlogin, rolsuper from pg_roles where rolname = any (%s)",
            [list(ROLES)],
        ).fetchall()
        assert len(rows) == len(ROLES)
        assert not any(row["rolcanlogin"] or row["rolsuper"] for row in rows)
        for role in ROLES:
            conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))


def test_many_upgrades_of_one_empty_database_at_once_all_succeed(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(upgrade, [empty_database] * 4))
    assert set(revisions) == {code_revision()}
    with session_to(empty_database) as conn:
        require_current(conn)


def test_of_those_that_want_a_current_database_one_upgrades_it(empty_database: str) -> None:
    """The others would reload what the first works with by then."""
    with ThreadPoolExecutor(4) as pool:
        did_it = list(pool.map(upgrade_older, [empty_database] * 4))
    assert sorted(did_it) == [False, False, False, True]


def test_a_current_database_is_not_reloaded_beside_who_works_in_it(clone: str) -> None:
    upgrade(clone)
    with ThreadPoolExecutor(1) as pool, session_to(clone) as service:
        service.execute("select from sync_priv.log_partitions")  # a reload would wait for it
        assert not pool.submit(upgrade_older, clone).result(PATIENCE_S)


def test_who_loses_a_deadlock_against_a_running_service_tries_again(
    clone: str, postgres: Server
) -> None:
    """`service` holds a table that the upgrade wants, and waits for what the upgrade holds."""
    admin_url = postgres.admin_url(clone.rpartition("/")[2])
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(admin_url, row_factory=dict_row, autocommit=True) as observer,
        psycopg.connect(admin_url, row_factory=dict_row) as door,
        psycopg.connect(admin_url, row_factory=dict_row) as service,
    ):
        door.execute("lock table sync_priv.alembic_version")
        service.execute("set deadlock_timeout = '1min'")  # the upgrade is the one to notice
        service.execute("lock table sync.repos in row exclusive mode")
        upgraded = pool.submit(upgrade, clone)
        wait_until_blocking(observer, door)
        with background(
            service, lambda: service.execute("select pg_advisory_xact_lock(%s)", [UPGRADE_LOCK])
        ) as locked:
            wait_until_blocked(observer, service)
            door.rollback()
            locked.result(PATIENCE_S)  # so the upgrade has given up all it held
        service.rollback()
        assert upgraded.result(PATIENCE_S) == code_revision()


def test_a_routine_that_no_file_defines_is_dropped(clone: str) -> None:
    with session_to(clone) as conn:
        conn.execute("set role sync_owner")
        conn.execute("create function sync.leftover(p_n int) returns int return p_n + 1")
    upgrade(clone)
    with session_to(clone) as conn:
        assert "sync.leftover(integer)" not in routines(conn)


def test_a_routine_that_a_migration_made_in_its_own_schema_stays(clone: str) -> None:
    upgrade(clone)  # a copied database has lost its grants; this gives the owner its own again
    with session_to(clone) as conn:
        conn.execute("set role sync_owner")
        conn.execute("create schema if not exists sync_migration")
        conn.execute("create function sync_migration.kept() returns int return 1")
    upgrade(clone)
    with session_to(clone) as conn:
        assert conn.execute("select sync_migration.kept() as n").fetchone() == {"n": 1}


def test_a_broken_file_names_itself_and_nothing_is_left_behind(clone: str, tmp_path: Path) -> None:
    good = "create function sync.half_way() returns int return 1;"
    (tmp_path / "10_good.sql").write_text(good)
    (tmp_path / "20_broken.sql").write_text("create function oops")
    with session_to(clone) as conn, pytest.raises(SchemaError, match=r"sql/20_broken\.sql"):
        conn.execute("set local role sync_owner")
        reload_sql(conn, folder=tmp_path)
    with session_to(clone) as conn:
        assert "sync.half_way()" not in routines(conn)


def test_a_percent_sign_or_a_colon_in_a_file_is_literal(clone: str, tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    shutil.copytree(sql_folder(), folder)
    text = "create function sync.odd() returns text return '100% :x %s %(y)s';"
    (folder / "odd.sql").write_text(text)
    with session_to(clone) as conn:
        conn.execute("set local role sync_owner")
        reload_sql(conn, folder=folder)
        assert conn.execute("select sync.odd() as said").fetchone() == {"said": "100% :x %s %(y)s"}


def test_a_trigger_goes_with_the_function_whose_file_is_gone(clone: str, tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    shutil.copytree(sql_folder(), folder)
    file = folder / "odd.sql"
    file.write_text(
        "create function sync_priv.odd() returns trigger language plpgsql "
        "as 'begin return null; end'; "
        "create trigger odd after insert on sync.hosts execute function sync_priv.odd();"
    )
    with session_to(clone) as conn:
        conn.execute("set local role sync_owner")
        reload_sql(conn, folder=folder)
        file.unlink()
        reload_sql(conn, folder=folder)
        assert "sync_priv.odd()" not in routines(conn)


def test_an_older_database_is_told_to_upgrade(clone: str) -> None:
    with session_to(clone) as conn:
        conn.execute("set local role sync_owner")
        conn.execute("delete from sync_priv.alembic_version")
        with pytest.raises(SchemaError, match="run `standpipe upgrade`"):
            require_current(conn)
        conn.rollback()


def test_a_newer_database_is_refused_by_service_and_upgrade(clone: str) -> None:
    with session_to(clone) as conn:
        conn.execute("set local role sync_owner")
        conn.execute("update sync_priv.alembic_version set version_num = '9999'")
        with pytest.raises(SchemaError, match="newer than this version"):
            require_current(conn)
    with pytest.raises(SchemaError, match="newer than this version"):
        upgrade(clone)


def test_an_unreachable_database_is_one_sentence_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        upgrade("postgresql://someone:s3cret@127.0.0.1:1/nowhere")
    assert "127.0.0.1:1/nowhere" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_login_that_may_not_make_roles_is_told_what_to_grant(
    postgres: Server, empty_database: str
) -> None:
    """The roles exist in the test cluster already, so what is missing is the membership."""
    postgres.administer(sql.SQL("create role plain_login login password 'plain'"))
    try:
        plain = empty_database.replace("//standpipe:", "//plain_login:")
        plain = plain.replace(plain.split(":")[2].split("@")[0], "plain")
        with pytest.raises(SchemaError, match="own-postgresql"):
            upgrade(plain)
    finally:
        postgres.administer(sql.SQL("drop role plain_login"))


def test_prepared_roles_are_enough_for_a_login_without_createrole(
    postgres: Server, empty_database: str
) -> None:
    name = empty_database.rpartition("/")[2]
    split = ", ".join(ROLES)
    postgres.administer(
        sql.SQL("create role prepared_login login password 'plain'"),
        sql.SQL("grant " + split + " to prepared_login"),
        sql.SQL("grant create on database {} to sync_owner").format(sql.Identifier(name)),
    )
    try:
        url = postgres.service_url(name).replace("//standpipe:", "//prepared_login:")
        url = url.replace(url.split(":")[2].split("@")[0], "plain")
        assert upgrade(url) == code_revision()
    finally:
        postgres.administer(sql.SQL("drop role prepared_login"))


def test_the_bootstrap_may_run_twice(clone: str) -> None:
    with session_to(clone) as conn:
        bootstrap_roles(conn)
        bootstrap_roles(conn)


def test_the_sql_files_are_found_in_a_checkout() -> None:
    assert (sql_folder() / "10_helpers").is_dir()


def routines(conn: Session) -> set[str]:
    rows = conn.execute(
        "select p.oid::regprocedure::text as name from pg_proc p "
        "join pg_namespace n on n.oid = p.pronamespace "
        "where n.nspname in ('sync', 'sync_priv', 'sync_stage')"
    )
    return {row["name"] for row in rows}
