"""Connections to PostgreSQL, and what its refusals mean in Python.

The ingest path speaks asyncpg (binary COPY), everything else psycopg. Both kinds of connection
carry a name that shows in `pg_stat_activity`, a role to work as, and keepalives, so that a peer
that is gone is noticed by either side within a minute. Neither looks into the schema `public`: who
may create there could have a function of his taken for a built-in one, and run with our rights.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from sync.errors import REFUSALS, DatabaseRefusal, DatabaseUnavailable, SchemaError

if TYPE_CHECKING:
    IngestConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:  # generic for the type checker only
    IngestConnection = asyncpg.Connection

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_IDLE_S = 20
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 3
REPLAN_S = 10.0
# As for our functions: pg_temp last, since types are looked for there first where it is not named.
SEARCH_PATH = "pg_catalog, pg_temp"

_DRIVER_ERRORS = (psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
# What a startup failure means, by SQLSTATE.
_LOGIN_REFUSED = {"28000", "28P01"}
_NO_SUCH_DATABASE = "3D000"
_NO_SUCH_ROLE = "22023"
_MAY_NOT_BECOME = "42501"


async def connect(
    url: str,
    *,
    name: str,
    role: str | None = None,
    timeout_s: float = CONNECT_TIMEOUT_S,
    idle_transaction_timeout_s: float | None = None,
    idle_timeout_s: float | None = None,
    prepares: bool = True,
) -> IngestConnection:
    """Open an asyncpg connection that works as `role`.

    `idle_transaction_timeout_s` makes the server end a session that holds a transaction open and
    says nothing: a paused ingest process must not keep its successor's rows locked.
    `idle_timeout_s` does so for any session: what it has locked is only leased. One that does not
    `prepare` statements keeps none between two calls, which code of others could exchange.
    """
    settings = {
        "application_name": name,
        "search_path": SEARCH_PATH,
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    }
    if role is not None:
        settings["role"] = role
    for name_of_it, seconds in (
        ("idle_in_transaction_session_timeout", idle_transaction_timeout_s),
        ("idle_session_timeout", idle_timeout_s),
    ):
        if seconds is not None:
            settings[name_of_it] = f"{round(seconds * 1000)}ms"
    with login_errors(url, role=role):
        return await asyncpg.connect(
            url,
            timeout=timeout_s,
            server_settings=settings,
            statement_cache_size=100 if prepares else 0,
        )


class Plans:
    """The plans that a session keeps, until somebody analyzes what they read.

    One that was made for a small table reads all of it, also when it has a million rows a moment
    later. So a session that lives for months plans anew, every now and then.
    """

    def __init__(self, conn: IngestConnection) -> None:
        self._conn = conn
        self._due_at = 0.0

    async def renew_if_due(self) -> None:
        """Forget the plans that are older than REPLAN_S."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + REPLAN_S
            await self._conn.execute("discard plans")


def connect_sync(
    url: str,
    *,
    name: str,
    role: str | None = None,
    timeout_s: float = CONNECT_TIMEOUT_S,
    autocommit: bool = False,
) -> psycopg.Connection[DictRow]:
    """Open a psycopg connection with rows as dicts that works as `role`."""
    with login_errors(url, role=role):
        return psycopg.connect(
            url,
            row_factory=dict_row,
            autocommit=autocommit,
            **psycopg_settings(url, name=name, role=role, timeout_s=timeout_s),
        )


def psycopg_settings(
    url: str, *, name: str, role: str | None = None, timeout_s: float = CONNECT_TIMEOUT_S
) -> dict[str, Any]:
    """Return the connection parameters every psycopg connection of ours adds to its URL."""
    given = str(conninfo_to_dict(url).get("options") or "")
    options = f"{given} -c search_path={SEARCH_PATH.replace(' ', '')}"
    if role is not None:
        options += f" -c role={role}"
    settings = app_settings(name=name, timeout_s=timeout_s)
    return {**settings, "options": options.strip()}


def app_settings(*, name: str, timeout_s: float = CONNECT_TIMEOUT_S) -> dict[str, Any]:
    """Return those that do not change what an app's own SQL means."""
    return {
        "application_name": name,
        "client_encoding": "UTF8",  # in any database, also one that is about to be refused
        "connect_timeout": max(2, round(timeout_s)),
        "keepalives_idle": KEEPALIVE_IDLE_S,
        "keepalives_interval": KEEPALIVE_INTERVAL_S,
        "keepalives_count": KEEPALIVE_COUNT,
    }


@contextmanager
def login_errors(url: str, *, role: str | None = None) -> Iterator[None]:
    """Turn whatever opening a connection raises into the sentence that says what to do."""
    try:
        yield
    except (OSError, ValueError, *_DRIVER_ERRORS) as error:
        _refuse(url, error, role=role)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what our SQL functions refuse (SQLSTATE SY…) into `DatabaseRefusal`.

    Any other database error passes through: it is not an answer but a fault.
    """
    try:
        yield
    except (asyncpg.PostgresError, psycopg.Error) as error:
        sqlstate = error.sqlstate or ""
        if not sqlstate.startswith("SY"):
            raise
        kind = REFUSALS.get(sqlstate, DatabaseRefusal)
        raise kind(sqlstate, first_line(error)) from error


def first_line(error: BaseException) -> str:
    """Return the message of a database error without its context and hints."""
    primary: str | None = None
    if isinstance(error, psycopg.Error):
        primary = error.diag.message_primary
    text = primary or str(error) or type(error).__name__
    return text.strip().splitlines()[0]


def place(url: str) -> str:
    """Name the server and database of a URL without its password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "the given URL"
    host = parts.get("host") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{host}{port}/{parts.get('dbname') or parts.get('user') or ''}"


def _refuse(url: str, error: Exception, *, role: str | None) -> NoReturn:
    """Raise the sentence that says why there is no connection and what to do."""
    where = place(url)
    sqlstate = getattr(error, "sqlstate", None)
    reason = first_line(error)
    if sqlstate is None and isinstance(error, psycopg.Error):
        # libpq reports a failed startup as text only.
        sqlstate = _sqlstate_in(str(error), role=role)
    if role is not None and sqlstate in {_NO_SUCH_ROLE, _MAY_NOT_BECOME}:
        raise SchemaError(
            f"The database at {where} does not let this login work as {role}: "
            "run `standpipe upgrade` with this URL, or grant it the role."
        ) from error
    if sqlstate in _LOGIN_REFUSED:
        raise DatabaseUnavailable(
            f"PostgreSQL at {where} refuses the login: "
            "check the user and the password in STANDPIPE_DATABASE_URL."
        ) from error
    if sqlstate == _NO_SUCH_DATABASE:
        raise DatabaseUnavailable(
            f"PostgreSQL answers, but the database of {where} does not exist: create it first."
        ) from error
    raise DatabaseUnavailable(
        f"PostgreSQL at {where} does not answer ({_without_password(url, reason)}): "
        "check STANDPIPE_DATABASE_URL and that the server runs."
    ) from error


def _sqlstate_in(text: str, *, role: str | None) -> str | None:
    """Guess the SQLSTATE of a failed libpq startup from its English text."""
    if role is not None and f'role "{role}"' in text:
        return _NO_SUCH_ROLE  # missing, or not ours to become; otherwise it is the login's name
    if "authentication failed" in text or "no pg_hba.conf entry" in text:
        return "28P01"
    if 'database "' in text and "does not exist" in text:
        return _NO_SUCH_DATABASE
    return "28000" if 'role "' in text and "does not exist" in text else None


def _without_password(url: str, text: str) -> str:
    """Blank the URL's password wherever a driver repeated it."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return "the URL cannot be read"
    return text.replace(password, "…") if password else text
