"""The recipe of docs/how-to/tenants.md with two tenants, for its tests."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from sync.database import connect_sync
from tests.acceptance.restoring import shell_environment
from tests.network.install import skip_loudly
from tests.postgres import TEMPLATE, Server
from tests.sql.driver import LIKE, POST, did
from tests.sql.readers import Reader, World

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "tenants"
PAGE = (ROOT / "docs" / "how-to" / "tenants.md").read_text(encoding="utf-8")
OPERATOR = "postgresql://standpipe:PASSWORD@HOST:5432/app"
# Of the repos 0 to 4: red sees posts of 0 and 1, blue posts and likes of 1 and 2; 1 is both's.
DIDS = {"red": [0, 1], "blue": [1, 2]}
COLLECTIONS = {"red": [POST], "blue": [POST, LIKE]}
REPOS = 5
# What neither may ever see, by its rkey.
SECRETS = ("hidden-one", "nobodys-one")
SEEN = {
    "red": {(0, POST, "post-0"), (1, POST, "post-1")},
    "blue": {
        (1, POST, "post-1"),
        (1, LIKE, "like-1"),
        (2, POST, "post-2"),
        (2, LIKE, "like-2"),
    },
}

Session = psycopg.Connection[DictRow]
Rows = set[tuple[str, str, str]]


def expected(tenant: str) -> Rows:
    return {(did(number), collection, rkey) for number, collection, rkey in SEEN[tenant]}


@dataclass(frozen=True, slots=True)
class House:
    """A database with two tenants."""

    server: Server
    url: str

    def url_of(self, tenant: str) -> str:
        return make_conninfo(self.url, user=tenant, password="secret")

    def enter(self, tenant: str) -> Session:
        """Log in as a tenant."""
        return psycopg.connect(self.url_of(tenant), row_factory=dict_row)

    def shell(self, script: str, folder: Path, url: str) -> str:
        """Run commands in a folder with PostgreSQL's programs."""
        for program in ("psql", "pg_dump"):
            if not (self.server.binaries.folder / program).exists():
                skip_loudly(f"NOT TESTED with {program}: there is none")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=shell_environment(self.server.binaries, STANDPIPE_DATABASE_URL=url),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def block(info: str) -> str:
    """Return the only block of the page with this first line."""
    [found] = re.findall(rf"^```{info}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@contextmanager
def open_house(postgres: Server) -> Iterator[House]:
    """Make a database with tenants red and blue, five repos, and what nobody may see."""
    try:
        with postgres.database(template=TEMPLATE) as name:
            house = House(postgres, postgres.service_url(name))
            script = block("sh setup").replace(OPERATOR, house.url)
            house.shell(script.replace("choose one", "secret"), FOLDER, house.url)
            with connect_sync(house.url, name="test", autocommit=True) as conn:
                conn.execute(
                    "update app.tenants set collections = %s where tenant = 'blue'",
                    [COLLECTIONS["blue"]],
                )
                for tenant, numbers in DIDS.items():
                    with house.enter(tenant) as own:
                        own.execute("select app.ask_for(%s)", [[did(n) for n in numbers]])
                with conn.transaction():
                    furnish(conn)
            yield house
    finally:
        for role in ("red_worker", "red", "blue", "tenants", "app_owner"):
            postgres.administer(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


def furnish(conn: Session) -> None:
    """Store records of every repo, one of which is hidden though red and blue want it."""
    world = World(conn, repos=REPOS)
    for number in range(3):
        world.put(number, f"post-{number}")
        world.put(number, f"like-{number}", collection=LIKE)
    world.put(3, "nobodys-one")
    world.put(4, "hidden-one")
    world.take_down(4)
    conn.execute(
        "insert into app.tenant_dids values ('red', %(did)s), ('blue', %(did)s)", {"did": did(4)}
    )


def seen(conn: Session, source: str = "app.records") -> Rows:
    rows = conn.execute(f"select did, collection, rkey from {source}".encode()).fetchall()
    return {(row["did"], row["collection"], row["rkey"]) for row in rows}


def own_reader(conn: Session, name: str) -> Reader:
    made = conn.execute("select app.create_consumer(%s) as name", [name]).fetchone()
    assert made is not None
    return Reader(conn, made["name"])


def read_all(reader: Reader) -> list[DictRow]:
    """Read until the tenant is told that there is no more."""
    rows: list[DictRow] = []
    for _ in range(100):
        rows += reader.read()
        status = reader.db.execute(
            "select is_at_rest from app.consumer_status where name = %s", [reader.name]
        ).fetchone()
        if status is not None and status["is_at_rest"]:
            return rows
    raise AssertionError(f"consumer {reader.name} does not come to rest")
