"""The four roles of the schema, made before anything else in an upgrade.

    sync_owner       owns every object; migrations and the SQL reload run as it
    sync_ingester    may stage and apply what was verified
    sync_reader      may read the views and consume the change log
    sync_replicator  may use the publications

None of them can log in. The user of the upgrade's URL becomes a member of all four; it needs
CREATEROLE once, or a database administrator who made the roles beforehand.
"""

from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from sync.database import first_line
from sync.errors import SchemaError

OWNER = "sync_owner"
INGESTER = "sync_ingester"
READER = "sync_reader"
REPLICATOR = "sync_replicator"
ROLES = (OWNER, INGESTER, READER, REPLICATOR)

# PostgreSQL 16 split membership in the right to inherit and the right to SET ROLE.
_FIRST_WITH_OPTIONS = 160000
_ATTEMPTS = 5

# Another database of the cluster may upgrade at this moment: roles are shared, our lock is not.
_RACE = {
    "42710",  # duplicate_object
    "23505",  # unique_violation in pg_authid or pg_auth_members
    "XX000",  # "tuple concurrently updated"
}


def bootstrap_roles(conn: psycopg.Connection[DictRow]) -> None:
    """Make the roles, join them, and let the owner create schemas in this database.

    Idempotent: grants are only issued when something is missing, so that a user without
    CREATEROLE can upgrade once an administrator has prepared the roles.
    """
    for role in ROLES:
        if not _exists(conn, role):
            _issue(conn, "create role {role} nologin", role)
        if not _is_member(conn, role):
            options = " with inherit true, set true" if _has_options(conn) else ""
            _issue(conn, "grant {role} to {user}" + options, role)
    if not _may_create(conn):
        _issue(conn, "grant create on database {database} to {role}", OWNER)


def _issue(conn: psycopg.Connection[DictRow], template: LiteralString, role: str) -> None:
    """Run one role statement in a savepoint; a lost race against another database is retried."""
    user, database = conn.info.user, conn.info.dbname
    statement = sql.SQL(template).format(
        role=sql.Identifier(role), user=sql.Identifier(user), database=sql.Identifier(database)
    )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with conn.transaction():
                conn.execute(statement)
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise SchemaError(_what_to_grant(user, database, error)) from error
        except psycopg.Error as error:
            if error.sqlstate not in _RACE or attempt == _ATTEMPTS:
                raise
            if error.sqlstate != "XX000":
                return  # the other side made exactly what we wanted


def _what_to_grant(user: str, database: str, error: psycopg.Error) -> str:
    """Say in one sentence what an administrator has to do."""
    return (
        f"The login {user} may not prepare the roles of database {database} "
        f"({first_line(error)}): let an administrator run "
        f'`alter role "{user}" createrole; alter database "{database}" owner to "{user}";`, '
        "or prepare the roles as docs/how-to/own-postgresql.md shows."
    )


def _has_options(conn: psycopg.Connection[DictRow]) -> bool:
    return conn.info.server_version >= _FIRST_WITH_OPTIONS


def _exists(conn: psycopg.Connection[DictRow], role: str) -> bool:
    found = conn.execute("select 1 from pg_catalog.pg_roles where rolname = %s", [role])
    return found.fetchone() is not None


def _is_member(conn: psycopg.Connection[DictRow], role: str) -> bool:
    """Tell whether this user can SET ROLE and has the role's rights without doing so."""
    wanted = "USAGE, SET" if _has_options(conn) else "USAGE"
    # A list of privileges means "any of them" to has_role functions, so each is asked alone.
    return all(
        _answer(conn, "pg_catalog.pg_has_role(session_user, %s, %s)", [role, one.strip()])
        for one in wanted.split(",")
    )


def _may_create(conn: psycopg.Connection[DictRow]) -> bool:
    question: LiteralString = (
        "pg_catalog.has_database_privilege(%s, pg_catalog.current_database(), 'CREATE')"
    )
    return _answer(conn, question, [OWNER])


def _answer(
    conn: psycopg.Connection[DictRow], expression: LiteralString, arguments: list[str]
) -> bool:
    row = conn.execute(sql.SQL("select " + expression + " as yes"), arguments).fetchone()
    return bool(row and row["yes"])
