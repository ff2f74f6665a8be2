"""Bring a database to the revision of this code: roles, migrations and SQL files in one go.

Migrations hold state (schemas, tables, indexes) and run once. Everything that can be replaced
(functions, views, triggers, grants) lives in `sql/**/*.sql` and is executed again on every
upgrade, in path order; a routine that no file defines any more is dropped. Both happen in one
transaction under one advisory lock, so an upgrade is whole or did not happen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import psycopg
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.rows import DictRow, TupleRow, dict_row, tuple_row
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sync.database import connect_sync, first_line, place
from sync.errors import SchemaError
from sync.roles import OWNER, bootstrap_roles

VERSION_SCHEMA = "sync_priv"
VERSION_TABLE = "alembic_version"
OLDEST_SERVER = 150000
# Any number does, as long as every version of Standpipe takes the same one.
UPGRADE_LOCK = 0x5354_414E_4450
_PRIVILEGES = "; docs/how-to/own-postgresql.md says what the login needs."
# The folder of grants is executed last; it defines nothing.
GRANTS_SUFFIX = "_grants"
# sync_migration is left out: what migrations define there has no file and stays.
RELOADED_SCHEMAS = ["sync", "sync_priv", "sync_stage"]

# Each waits up to a second for a lock; a service takes its locks anew with every batch.
_ATTEMPTS = 10

T = TypeVar("T")
Session = psycopg.Connection[DictRow]
# Where a routine's row lies and who wrote it: `create or replace` changes both.
Footprint = dict[str, tuple[str, str]]


def upgrade(url: str, *, restored: bool = False) -> str:
    """Migrate and reload the database of `url`; return the revision it has now.

    Safe to run by several processes at once, and again when nothing has changed. `restored` says
    that the database is a file-system copy, which PostgreSQL itself cannot tell from the
    original: positions of the change log then start a new epoch.
    """

    def work(connection: Connection, session: Session) -> str:
        _upgrade(connection, session, restored=restored)
        return code_revision()

    return _do_whole(url, work)


def upgrade_older(url: str) -> bool:
    """Upgrade the database of `url` if it is older than the code; tell whether it was.

    Of several processes that come at once, the first does it. It works there when the next gets
    the lock, and a reload, which locks everything, could deadlock with it.
    """

    def work(connection: Connection, session: Session) -> bool:
        is_older = database_revision(session) != code_revision()
        if is_older:
            _upgrade(connection, session)
        return is_older

    return _do_whole(url, work)


def _do_whole(url: str, work: Callable[[Connection, Session], T]) -> T:
    """Do `work` in one transaction, again where it lost a deadlock against a running service."""
    attempts = 0
    while True:
        attempts += 1
        try:
            with _told_as_schema_error(url), _one_transaction(url) as (connection, session):
                return work(connection, session)
        except SchemaError as error:
            if attempts == _ATTEMPTS or not _is_deadlock(error):
                raise


def _is_deadlock(error: BaseException | None) -> bool:
    """Tell whether a deadlock is among the causes of an error."""
    return error is not None and (
        isinstance(error, psycopg.errors.DeadlockDetected) or _is_deadlock(error.__cause__)
    )


def _upgrade(connection: Connection, session: Session, *, restored: bool = False) -> None:
    _check_server(session)
    bootstrap_roles(session)
    session.execute(f"set local role {OWNER}")
    _refuse_foreign_schemas(session)
    _refuse_newer(database_revision(session))
    _migrate(connection, session)
    reload_sql(session)
    session.execute("select sync_priv.define_searches()")
    session.execute("select sync_priv.refuse_torn()")
    session.execute("select sync_priv.notice_restore(%s)", [restored])


def prepare_roles(url: str) -> None:
    """Make the roles, and let them work in the database of `url`: what a dump does not bring."""
    try:
        with connect_sync(url, name="standpipe upgrade") as session:
            bootstrap_roles(session)
    except psycopg.Error as error:
        raise SchemaError(f"The roles of {place(url)} failed: {first_line(error)}") from error


def run_sql(script: str) -> None:
    """Run the .sql file beside a migration's .py; its `:` and `%` are literal."""
    text = Path(script).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(text, execution_options={"no_parameters": True})


def reload_sql(session: Session, *, folder: Path | None = None) -> None:
    """Execute every SQL file, then drop the routines that none of them defined.

    The caller holds the transaction and works as the owner.
    """
    root = folder or sql_folder()
    files = sorted(root.rglob("*.sql"))
    grants = [path for path in files if path.parent.name.endswith(GRANTS_SUFFIX)]
    # A file may name what a later file defines.
    session.execute("set local check_function_bodies = off")
    before = _footprints(session)
    _execute(session, root, [path for path in files if path not in grants])
    after = _footprints(session)
    _drop_routines(session, sorted(name for name in before if after.get(name) == before[name]))
    # Last, because a grant on all routines of a schema would touch also what no file defines.
    _execute(session, root, grants)


def _execute(session: Session, root: Path, files: list[Path]) -> None:
    for path in files:
        try:
            # Bytes, because a file is not a template: nothing in it is a parameter.
            session.execute(path.read_bytes())
        except psycopg.Error as error:
            name = path.relative_to(root).as_posix()
            raise SchemaError(f"sql/{name} cannot be loaded: {first_line(error)}") from error


def code_revision() -> str:
    """Return the newest revision this code knows."""
    head = _scripts().get_current_head()
    if head is None:
        raise SchemaError("This installation has no migrations: install Standpipe again.")
    return head


def database_revision(session: Session) -> str | None:
    """Return the revision of a database, None where Standpipe was never installed."""
    table = f"{VERSION_SCHEMA}.{VERSION_TABLE}"
    found = session.execute("select to_regclass(%s) as oid", [table]).fetchone()
    if found is None or found["oid"] is None:
        return None
    # Both parts of the name are constants above.
    query = f"select version_num from {table}"  # noqa: S608
    row = session.execute(query.encode()).fetchone()
    return str(row["version_num"]) if row else None


def require_current(session: Session) -> None:
    """Refuse to work on a schema that is older or newer than the code."""
    found = database_revision(session)
    if found == code_revision():
        return
    _refuse_newer(found)
    state = "has no Standpipe schema" if found is None else f"is at schema revision {found}"
    raise SchemaError(
        f"The database {state}, this version needs {code_revision()}: run `standpipe upgrade`."
    )


def sql_folder() -> Path:
    """Return where the SQL files are: beside the package in a wheel, else in the checkout."""
    return _folder("_sql", "sql")


def migrations_folder() -> Path:
    """Return where the migrations are: beside the package in a wheel, else in the checkout."""
    return _folder("_migrations", "migrations")


def _folder(packaged: str, checkout: str) -> Path:
    package = Path(__file__).parent
    for candidate in (package / packaged, package.parent / checkout):
        if candidate.is_dir():
            return candidate
    raise SchemaError(f"This installation lacks its {checkout} folder: install Standpipe again.")


@contextmanager
def _told_as_schema_error(url: str) -> Iterator[None]:
    """Turn what goes wrong in an upgrade into one sentence."""
    try:
        yield
    except DBAPIError as error:
        hint = _PRIVILEGES if isinstance(error.orig, psycopg.errors.InsufficientPrivilege) else ""
        raise SchemaError(f"A migration failed: {first_line(error.orig or error)}{hint}") from error
    except psycopg.Error as error:
        raise SchemaError(f"The upgrade of {place(url)} failed: {first_line(error)}") from error


@contextmanager
def _one_transaction(url: str) -> Iterator[tuple[Connection, Session]]:
    """Open one transaction that both Alembic and psycopg write in, under the upgrade lock."""

    def dial() -> psycopg.Connection[TupleRow]:
        return _for_alembic(connect_sync(url, name="standpipe upgrade"))

    engine = create_engine("postgresql+psycopg://", creator=dial, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            session = connection.connection.driver_connection
            if not isinstance(session, psycopg.Connection):
                raise TypeError("SQLAlchemy was given a psycopg connection and returned another")
            session.row_factory = dict_row
            session.execute("select pg_advisory_xact_lock(%s)", [UPGRADE_LOCK])
            yield connection, session
    finally:
        engine.dispose()


def _check_server(session: Session) -> None:
    """Refuse a server the schema was not written for."""
    version = session.info.server_version
    if version < OLDEST_SERVER:
        raise SchemaError(f"PostgreSQL {version // 10000} is too old: Standpipe needs 15 or newer.")
    row = session.execute("show server_encoding").fetchone()
    encoding = row["server_encoding"] if row else "unknown"
    if encoding != "UTF8":
        raise SchemaError(f"The database's encoding is {encoding}: create it with encoding UTF8.")


def _refuse_foreign_schemas(session: Session) -> None:
    """Refuse a schema of our name that somebody else made: its owner may drop what is in it."""
    row = session.execute(
        """
        select n.nspname, pg_get_userbyid(n.nspowner)::text as owner
          from pg_catalog.pg_namespace n
         where n.nspname = any (%s) and n.nspowner <> %s::regrole
         order by n.nspname limit 1
        """,
        [[*RELOADED_SCHEMAS, "sync_migration", "sync_views", "sync_search"], OWNER],
    ).fetchone()
    if row is not None:
        name, owner = row["nspname"], row["owner"]
        raise SchemaError(
            f"The schema {name} belongs to {owner} instead of {OWNER}: somebody else made it, or a "
            "dump was restored without its owners. Drop it first."
        )


def _refuse_newer(found: str | None) -> None:
    """Refuse a revision this code has never heard of."""
    known = {revision.revision for revision in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(
            f"The database is at schema revision {found}, which is newer than this version of "
            f"Standpipe ({code_revision()}): install the newer version."
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


def _alembic_config() -> Config:
    """Say where things are; `[tool.alembic]` says the same to the alembic command."""
    folder = str(migrations_folder()).replace("%", "%%")  # Alembic reads `%` as interpolation
    config = Config()
    config.set_main_option("script_location", f"{folder}/environment")
    config.set_main_option("version_locations", folder)
    # Anything that splits nothing: there is one location, and its path may hold spaces.
    config.set_main_option("path_separator", "newline")
    return config


def _migrate(connection: Connection, session: Session) -> None:
    """Run the missing migrations on the open transaction."""
    config = _alembic_config()
    config.attributes["connection"] = connection
    _for_alembic(session)
    try:
        command.upgrade(config, "head")
    finally:
        session.row_factory = dict_row


def _for_alembic(session: Session) -> psycopg.Connection[TupleRow]:
    """Make a connection answer in tuples, the only rows SQLAlchemy understands."""
    tuples = cast(psycopg.Connection[TupleRow], session)
    tuples.row_factory = tuple_row
    return tuples


def _drop_routines(session: Session, names: list[str]) -> None:
    """Drop routines with the triggers that call them; anything else in the way is a mistake."""
    triggers = session.execute(
        """
        select format('drop trigger %%I on %%s', t.tgname, t.tgrelid::regclass) as statement
        from pg_catalog.pg_trigger t
        where t.tgfoid = any (%s::regprocedure[]) and not t.tgisinternal and t.tgparentid = 0
        """,
        [names],
    ).fetchall()
    for row in triggers:
        session.execute(row["statement"].encode())
    for name in names:
        session.execute(f"drop routine {name}".encode())


def _footprints(session: Session) -> Footprint:
    """Return every routine of ours with the place of its catalog row.

    What an extension owns has no file either and is not ours to drop.
    """
    rows = session.execute(
        """
        select p.oid::regprocedure::text as name, p.ctid::text as place, p.xmin::text as writer
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (%s)
          and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
              and d.deptype = 'e'
          )
        """,
        [RELOADED_SCHEMAS],
    )
    return {row["name"]: (row["place"], row["writer"]) for row in rows}
