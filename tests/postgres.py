"""The PostgreSQL that the tests use: one throw-away server, one template, a clone per test."""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from sync.embedded import Binaries, EmbeddedPostgres, find_binaries
from sync.embedded.account import choose_account, readable_binaries
from sync.embedded.binaries import read_binaries
from sync.embedded.cluster import SUPERUSER, DataFolder, single_user
from sync.schema import upgrade

BINARIES_VARIABLE = "STANDPIPE_TEST_POSTGRES_BIN"
TEMPLATE = "standpipe_template"
ADMIN_PASSWORD = "admin"
DROP_ATTEMPTS = 12

# A test server may lose everything: it is thrown away after a crash.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "autovacuum": "off",
    # Off by default; with it on, a test sees that we refuse a two-phase commit ourselves.
    "max_prepared_transactions": "5",
}


def chosen_binaries() -> Binaries:
    """Return the PostgreSQL that an environment variable names, else the embedded one."""
    named = os.environ.get(BINARIES_VARIABLE)
    if not named:
        return find_binaries()
    binaries = read_binaries(Path(named))
    if binaries is None:
        raise RuntimeError(f"{BINARIES_VARIABLE}={named} holds no postgres that runs here")
    return binaries


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: URLs of its superuser and of the service's login, by database."""

    service: str
    binaries: Binaries
    numbers: Iterator[int]

    def service_url(self, database: str) -> str:
        """Return the URL of the service's non-superuser login."""
        return self.service.rpartition("/")[0] + "/" + database

    def admin_url(self, database: str = "postgres") -> str:
        """Return the URL of the superuser, who only prepares and cleans up."""
        place = self.service.rpartition("@")[2].partition("/")[0]
        return f"postgresql://{SUPERUSER}:{ADMIN_PASSWORD}@{place}/{database}"

    def administer(self, *statements: sql.SQL | sql.Composed) -> None:
        """Run statements as superuser, each in its own transaction."""
        with psycopg.connect(self.admin_url(), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    @contextmanager
    def database(self, *, template: str = "template0") -> Iterator[str]:
        """Make a database owned by the service's login; drop it at the end."""
        name = f"test_{next(self.numbers)}"
        # Without fsync a copy of the files takes a quarter of the time of one through the WAL.
        create = "create database {name} template {template} owner standpipe strategy file_copy"
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        self.administer(sql.SQL(create).format(**names))
        try:
            yield name
        finally:
            self._drop(sql.SQL("drop database {name} with (force)").format(**names))

    def _drop(self, drop: sql.Composed) -> None:
        """Drop a database; each attempt gives whoever is in it five seconds to leave."""
        for _ in range(DROP_ATTEMPTS - 1):
            try:
                return self.administer(drop)
            except psycopg.errors.ObjectInUse:
                continue  # a busy machine takes longer
        return self.administer(drop)

    def make_template(self) -> None:
        """Upgrade the database that every clone is copied from."""
        create = sql.SQL("create database {} owner standpipe").format(sql.Identifier(TEMPLATE))
        self.administer(create)
        upgrade(self.service_url(TEMPLATE))


@contextmanager
def running_server(
    folder: Path, binaries: Binaries, *, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server in a new folder, with a superuser who can log in."""
    postgres = EmbeddedPostgres(folder, binaries=binaries, settings={**FAST, **(settings or {})})
    with postgres:
        pass  # makes the cluster
    account = choose_account(folder)
    single_user(
        account,
        readable_binaries(binaries, account, folder),
        DataFolder(folder.resolve()).cluster,
        [f"alter role {SUPERUSER} password '{ADMIN_PASSWORD}'"],
    )
    with postgres as url:
        yield Server(url, binaries, itertools.count(1))
