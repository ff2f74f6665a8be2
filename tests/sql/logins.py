"""Real logins, one a role, in a database where every way of being hidden occurs.

    first, second   apps: members of sync_reader, each with a schema of its own
    member          a login that may become `first`
    ingester        a member of sync_ingester
    replicator      a member of sync_replicator that may stream
    stranger        a login that nobody granted anything

Repo 0 shows its record `a`; those of the others are hidden (rkeys in `HIDDEN`), each for another
reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from tests.postgres import TEMPLATE, Server
from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import Session, World

APPS = ("first", "second")
HIDDEN = ("by-operator", "by-upstream", "by-untracking", "by-collection")
PASSWORD = "secret"

_MEMBERSHIPS = {
    "first": "sync_reader",
    "second": "sync_reader",
    "member": "first",
    "ingester": "sync_ingester",
    "replicator": "sync_replicator",
    "stranger": None,
}


@dataclass(frozen=True, slots=True)
class House:
    """A database and who may log in to it."""

    server: Server
    name: str

    def url(self, login: str) -> str:
        """Return the URL of a login; `standpipe` is the service's own."""
        service = self.server.service_url(self.name)
        if login == "standpipe":
            return service
        return make_conninfo(service, user=login, password=PASSWORD)

    @contextmanager
    def enter(self, login: str, *, options: str = "") -> Iterator[Session]:
        """Open a connection as a login; whatever it does is rolled back."""
        conn: psycopg.Connection[DictRow] = psycopg.connect(
            self.url(login), row_factory=dict_row, options=options
        )
        try:
            yield conn
        finally:
            conn.close()

    def administer(self, statement: str) -> None:
        """Run a statement in this database as its superuser."""
        with psycopg.connect(self.server.admin_url(self.name), autocommit=True) as conn:
            conn.execute(statement.encode())


@contextmanager
def open_house(server: Server) -> Iterator[House]:
    """Make the logins and the database, and take them away."""
    for login, role in _MEMBERSHIPS.items():
        server.administer(
            sql.SQL("create role {} login {} password {} {}").format(
                sql.Identifier(login),
                sql.SQL("replication" if login == "replicator" else ""),
                sql.Literal(PASSWORD),
                sql.SQL("in role {}").format(sql.Identifier(role)) if role else sql.SQL(""),
            )
        )
    try:
        with server.database(template=TEMPLATE) as name:
            house = House(server, name)
            for app in APPS:
                house.administer(f"create schema {app} authorization {app}")
            _furnish(house)
            yield house
    finally:
        for login in reversed(_MEMBERSHIPS):
            server.administer(sql.SQL("drop role {}").format(sql.Identifier(login)))


def _furnish(house: House) -> None:
    """Store a visible record, and a hidden one for each reason there is."""
    with psycopg.connect(house.url("standpipe"), row_factory=dict_row) as conn:
        world = World(conn, repos=1 + len(HIDDEN))
        # Typed by hand, so that their creation, with their contents, is in the log as well.
        world.put(0, "a")
        for number, reason in enumerate(HIDDEN, start=1):
            world.put(number, reason, collection=LIKE if reason == "by-collection" else POST)
        conn.execute("select sync.take_down_repos(%s)", [[did(1)]])
        conn.execute("update sync.repos set is_active = false where did = %s", [did(2)])
        world.untrack(3)
        # Hides only the collection: repo 4 itself stays visible.
        conn.execute("select sync.track_collections(array[%s])", [POST])
        conn.execute("select sync.untrack_collections(array['*'])")


def sqlstate_of(conn: Session, statement: str, *args: object) -> str | None:
    """Return what a statement is refused with; None when it is not."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement.encode(), args or None)
    except psycopg.Error as error:
        return error.sqlstate
    return None
