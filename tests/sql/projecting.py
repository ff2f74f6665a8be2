"""An app that keeps a table by a projection, played in one connection.

The table holds the CID of every record of one or all collections; so it is right when it equals
what `sync.records` shows. What the app's function does beside that, a test may choose.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.postgres import Server
from tests.sql.readers import Contents, Session

ROLE = "painter"
OTHER = "sculptor"

_TABLE = """
    create table app.{name} (
      did         text collate "C" not null,
      collection  text collate "C" not null,
      rkey        text collate "C" not null,
      cid         text not null,
      primary key (did, collection, rkey)
    )
"""
_FUNCTION = """
    create or replace function app.apply_{name}(target regclass, changes sync.change[])
      returns void language plpgsql security definer set search_path = app, pg_temp
    as $apply$
    begin
      {before};
      execute format($q$
        delete from %s t using unnest($1) c
         where c.op in ('purge', 'delete') and t.did = coalesce(c.did, t.did)
           and t.collection = coalesce(c.collection, t.collection)
           and t.rkey = coalesce(c.rkey, t.rkey)
      $q$, target) using changes;
      execute format($q$
        insert into %s select c.did, c.collection, c.rkey, c.cid
          from unnest($1) c where c.op = 'put'
            on conflict (did, collection, rkey) do update set cid = excluded.cid
      $q$, target) using changes;
      {after};
    end
    $apply$
"""


@contextmanager
def app_roles(server: Server) -> Iterator[None]:
    """Make the roles of two apps, of which the service's login is a member."""
    for name in (ROLE, OTHER):
        role = sql.Identifier(name)
        server.administer(
            sql.SQL("create role {} nologin").format(role),
            sql.SQL("grant sync_reader to {}").format(role),
            sql.SQL("grant {} to standpipe").format(role),
        )
    try:
        yield
    finally:
        for name in (ROLE, OTHER):
            server.administer(sql.SQL("drop role {}").format(sql.Identifier(name)))


@dataclass(slots=True)
class App:
    """A schema `app` that belongs to `painter`, and its projections."""

    db: Session
    is_new: bool = True

    def __post_init__(self) -> None:
        if not self.is_new:
            return
        self.db.execute(f"create schema app authorization {ROLE}".encode())
        with self.role():
            self.db.execute("grant usage on schema app to sync_ingester")

    @contextmanager
    def role(self, name: str = ROLE) -> Iterator[None]:
        """Work as a role."""
        self.db.execute(sql.SQL("set role {}").format(sql.Identifier(name)))
        try:
            yield
        finally:
            if self.db.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                self.db.execute("reset role")

    def define(self, name: str, *, before: str = "null", after: str = "null") -> None:
        """Make or replace the apply function of a table."""
        with self.role():
            self.db.execute(_FUNCTION.format(name=name, before=before, after=after).encode())

    def make(self, name: str, collections: list[str] | None = None, **does: str) -> None:
        """Make a table, its function and its projection."""
        with self.role():
            self.db.execute(_TABLE.format(name=name).encode())
        self.define(name, **does)
        self.create(name, collections)

    def create(self, name: str, collections: list[str] | None = None, **more: Any) -> None:
        """Make a projection for a table and a function that are there."""
        with self.role():
            self.db.execute(
                "select sync.create_projection(%s, %s::regclass, %s::text[], %s::regprocedure, %s)",
                [name, f"app.{name}", collections, f"app.apply_{name}(regclass, sync.change[])",
                 more.get("adopt", False)],
            )  # fmt: skip

    def run(self, name: str, limit: int = 1000, *, role: str = "sync_ingester") -> int:
        """Give a projection one batch, as the service does."""
        with self.role(role):
            row = self.db.execute("select sync.run_projection(%s, %s) as n", [name, limit])
            return int((row.fetchone() or {})["n"])

    def settle(self, name: str, limit: int = 1000) -> None:
        """Run until everything there is has been applied."""
        for _ in range(1000):
            self.run(name, limit)
            status = self.status(name)
            if status["is_at_rest"] or status["state"] != "running":
                return
        raise AssertionError(f"{name} does not come to rest: {self.status(name)}")

    def call(self, function: str, name: str, *, role: str = ROLE) -> dict[str, Any]:
        """Call pause, resume, rebuild or drop of a projection."""
        with self.role(role):
            row = self.db.execute(f"select * from sync.{function}_projection(%s)".encode(), [name])
            return row.fetchone() or {}

    def status(self, name: str) -> dict[str, Any]:
        """Return its row of sync.projection_status."""
        row = self.db.execute(
            "select * from sync.projection_status where name = %s", [name]
        ).fetchone()
        assert row is not None
        return row

    def kept(self, name: str) -> Contents:
        """Return what its table holds."""
        rows = self.db.execute(f"select * from app.{name}".encode()).fetchall()
        return {(row["did"], row["collection"], row["rkey"]): row["cid"] for row in rows}
