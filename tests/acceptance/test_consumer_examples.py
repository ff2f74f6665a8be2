"""The programs in docs/examples/consumers, run as their README says: exactly once, each of them."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from tests.acceptance.commands import clean_environment, wait_until
from tests.network.install import ensure_installed, missing_tool, skip_loudly
from tests.postgres import Server
from tests.sql.driver import LIKE, POST, cid, did

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "consumers"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^\| \[(with_[^]]+)\].*? \| `(.+?)` \| ", README, re.MULTILINE))
PATIENCE_S = 30.0
NO_POLL_S = 600
ACCOUNTS = range(1, 5)
PSQL = "with_psql.sql"

Session = psycopg.Connection[DictRow]
KEPT = "select did, rkey, text from posts order by 1, 2"
STORED = """
    select did, rkey, value ->> 'text' as text from sync.records
     where collection = 'app.bsky.feed.post' order by 1, 2
"""
COUNTED = "select did, posts from post_counts where posts <> 0 order by 1"
COUNTS = """
    select did, count(*) as posts from sync.records
     where collection = 'app.bsky.feed.post' group by 1 order by 1
"""
PUT = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value, raw, reason)
    select r.repo_id, c.collection_id, %(rkey)s, %(cid)s, '3kaaaaaaaaaaa', %(value)s::jsonb,
           case when %(value)s is null then '\\xa0'::bytea end,
           case when %(value)s is null then 'a null character' end
      from sync.repos r, sync.collections c where r.did = %(did)s and c.nsid = %(collection)s
        on conflict (repo_id, collection_id, rkey) do update
       set cid = excluded.cid, value = excluded.value, raw = excluded.raw, reason = excluded.reason
"""
MANY = """
    insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
    select r.repo_id, c.collection_id, 'many' || n, '\\x01711220' || sha256(int4send(n)),
           '3kaaaaaaaaaaa', jsonb_build_object('text', n::text)
      from generate_series(1, %s) n, sync.repos r, sync.collections c
     where r.did = %s and c.nsid = %s
"""
DELETE = """
    delete from sync.stored_records s using sync.repos r
     where s.repo_id = r.repo_id and (r.did, s.rkey) = (%s, %s)
"""


@pytest.fixture(scope="module")
def login(postgres: Server) -> Iterator[str]:
    """Return `name:password` of an app's login: a member of sync_reader and of nothing else."""
    postgres.administer(
        sql.SQL("create role app_login login password 'secret'"),
        sql.SQL("grant sync_reader to app_login"),
    )
    yield "app_login:secret"
    postgres.administer(sql.SQL("drop role app_login"))


class World:
    """Somebody who writes records by hand, and the app's tables beside them."""

    def __init__(self, session: Session, admin_url: str, url: str) -> None:
        self.session, self.admin_url, self.url = session, admin_url, url
        self.admin = psycopg.connect(admin_url, autocommit=True, row_factory=dict_row)
        self._version = 0
        session.execute("grant create on schema public to app_login")
        session.execute("select sync.track_collections(%s)", [[POST, LIKE]])
        session.execute("select sync.track_repos(%s)", [[did(n) for n in ACCOUNTS]])
        for nsid in (POST, LIKE):
            session.execute(
                "insert into sync.collections (nsid) values (%s) on conflict do nothing", [nsid]
            )

    def put(self, account: int, rkey: str, value: str | None, *, collection: str = POST) -> None:
        """Write a record, given as JSON; None is what jsonb cannot hold."""
        self._version += 1
        names = {"did": did(account), "rkey": rkey, "collection": collection}
        self.session.execute(PUT, {**names, "cid": cid(self._version), "value": value})

    def say(self, account: int, rkey: str, text: str = "lorem") -> None:
        """Write a post."""
        self.put(account, rkey, f'{{"text": "{text} {self._version}"}}')

    def say_much(self, account: int, count: int) -> None:
        """Write more posts than a batch has, at once."""
        self.session.execute(MANY, [count, did(account), POST])

    def delete(self, account: int, rkey: str) -> None:
        """Delete a record, if it is there."""
        self.session.execute(DELETE, [did(account), rkey])

    def replay(self) -> None:
        """Have the app ask for everything again."""
        with psycopg.connect(self.url) as conn:
            conn.execute("select sync.replay('posts')")

    def untrack(self, collection: str) -> int:
        """Have everything of a collection purged."""
        query = "select sync.untrack_collections(%s) as n"
        [row] = self.session.execute(query, [[collection]]).fetchall()
        return int(row["n"])

    def take_down(self, account: int) -> None:
        """Hide an account."""
        self.session.execute("select sync.take_down_repos(%s)", [[did(account)]])

    def restore(self, account: int) -> None:
        """Show it again."""
        self.session.execute("select sync.restore_repos(%s)", [[did(account)]])

    def do_something(self, chance: random.Random) -> None:
        """Write as an account would, now and then hide one or show it again."""
        account, rkey = chance.choice(ACCOUNTS), chance.choice("abcdef")
        what = chance.choices(("say", "delete", "take_down", "restore"), (60, 30, 3, 7))[0]
        getattr(self, what)(*((account, rkey) if what in {"say", "delete"} else (account,)))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return list(self.admin.execute(query.encode()).fetchall())

    def is_kept(self) -> bool:
        """Tell whether the app's tables say what is there, and count right."""
        with self.admin.transaction():
            self.admin.execute("set transaction isolation level repeatable read")
            return (self.rows(KEPT), self.rows(COUNTED)) == (self.rows(STORED), self.rows(COUNTS))

    def backends(self, condition: str = "true") -> list[int]:
        """Return the process ids of the program's connections."""
        query = f"select pid from pg_stat_activity where usename = 'app_login' and {condition}"
        return [row["pid"] for row in self.rows(query)]

    def terminate(self) -> None:
        """End the program's connections."""
        pids = self.backends()
        assert pids
        for pid in pids:
            self.admin.execute("select pg_terminate_backend(%s, 10000)", [pid])

    @contextmanager
    def in_a_batch(self) -> Iterator[None]:
        """Hold the program in the middle of a transaction: it has read, and may not count."""
        with psycopg.connect(self.admin_url) as holder:
            holder.execute("lock table post_counts in share mode")
            with self.session.transaction():  # what follows the count would be lost
                self.say(1, f"held{self._version}")
                self.say(1, "a", "another")
            wait_until(
                lambda: self.backends("pg_blocking_pids(pid) <> '{}'"),
                "the program applies a batch",
                timeout_s=PATIENCE_S,
            )
            yield


@dataclass(slots=True)
class Example:
    """One of the programs, and how it is run."""

    name: str
    world: World
    environment: dict[str, str]
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_psql(self) -> bool:
        """Tell whether it is psql, which neither listens nor connects again."""
        return self.name == PSQL

    def start(self) -> None:
        """Run the command of the README's table."""
        command = COMMANDS[self.name].replace("python", sys.executable, 1)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def await_kept(self, what: str) -> None:
        """Wait until the app's tables are right."""

        def is_kept() -> bool:
            assert self.is_running(), self.log.read_text()
            return self.world.is_kept()

        wait_until(is_kept, f"kept: {what}", timeout_s=PATIENCE_S)

    def is_running(self) -> bool:
        """Tell whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def await_loss(self) -> None:
        """See that psql, and only psql, gives up; then do what the README says."""
        if self.is_psql:
            assert self.wait() != 0
            self.start()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        assert self.is_running(), self.log.read_text()
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return how it ended."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def ask_to_end(self) -> None:
        """See that it ends well when it is asked to."""
        self.send(signal.SIGINT if self.is_psql else signal.SIGTERM)
        assert self.wait() == 0, self.log.read_text()

    def kill(self) -> None:
        """End it without a word."""
        self.send(signal.SIGKILL)
        self.wait()


@pytest.fixture
def programs(postgres: Server) -> Path:
    """Return the folder with the server's psql."""
    folder = postgres.binaries.folder
    if not (folder / "psql").exists():
        skip_loudly(f"NOT TESTED with psql: there is none in {folder}")
    return folder


@pytest.fixture
def world(login: str, clone: str, session: Callable[..., Session], postgres: Server) -> Any:
    """Return a database of an app."""
    place, _, database = clone.rpartition("@")[2].partition("/")
    made = World(
        session(), postgres.admin_url(database), f"postgresql://{login}@{place}/{database}"
    )
    yield made
    made.admin.close()


@pytest.fixture
def environment(world: World, programs: Path) -> dict[str, str]:
    """Return what the programs find; their login has made its tables, as the README says."""
    path = f"{programs}:{os.environ['PATH']}"
    inherited = clean_environment(PATH=path, POLL_S=str(NO_POLL_S), PYTHONWARNINGS="error")
    found = re.search(r"^```sh setup\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    [url] = re.findall(r"postgresql://\S+", found[1])
    script = found[1].replace(url, world.url)
    subprocess.run(
        ["bash", "-euc", script], cwd=FOLDER, env=inherited, check=True, timeout=PATIENCE_S
    )
    return inherited | {"STANDPIPE_DATABASE_URL": world.url}


@pytest.fixture(params=sorted(COMMANDS))
def example(
    request: pytest.FixtureRequest, world: World, environment: dict[str, str], tmp_path: Path
) -> Iterator[Example]:
    """Return each of the programs; what runs in the end is killed."""
    folder = FOLDER
    if request.param.endswith(".mjs"):
        if missing := missing_tool("node", "npm"):
            skip_loudly(f"NOT TESTED with Node: it {missing}")
        folder = ensure_installed(FOLDER).scripts
    if request.param == PSQL:
        environment = environment | {"POLL_S": "0.1"}
    made = Example(request.param, world, environment, folder, tmp_path / "program.log")
    yield made
    if made.is_running():
        made.kill()
    print(made.log.read_text())


def test_the_readme_runs_every_program() -> None:
    files = {path.name for path in FOLDER.glob("with_*")}
    assert set(COMMANDS) == files


def test_it_keeps_the_tables_whatever_comes(world: World, example: Example) -> None:
    """Nothing but a notification could make it look in time."""
    for account in ACCOUNTS:
        for rkey in "abc":
            world.say(account, rkey)
    world.say_much(3, 2500)
    world.put(1, "odd", '{"text": {"is": ["no", "string"]}}')
    world.put(1, "none", '{"text": null, "other": true}')
    world.put(1, "raw", None)
    world.put(1, "like", '{"text": "not a post"}', collection=LIKE)
    example.start()
    example.await_kept("what was there")
    for n in range(3):
        world.say(2, f"new{n}")
        example.await_kept("a new post")
    world.say(2, "a", "ipsum")
    world.put(3, "a", None)
    world.delete(2, "b")
    example.await_kept("an update and a delete")
    with world.session.transaction():  # one batch
        for n in range(3):
            world.say(4, "a", f"version {n} of")
            world.delete(4, "b")
            world.say(4, "b")
    example.await_kept("many changes of the same records")
    assert world.untrack(LIKE) == 1
    world.say(4, "new")
    example.await_kept("a purge of another collection")
    world.take_down(2)
    example.await_kept("a takedown")
    assert did(2) not in {row["did"] for row in world.rows(KEPT)}
    world.restore(2)
    example.await_kept("what is shown again")
    assert did(2) in {row["did"] for row in world.rows(KEPT)}


def test_a_lost_connection_is_made_again(world: World, example: Example) -> None:
    world.say(1, "a")
    example.start()
    example.await_kept("what was there")
    world.terminate()
    example.await_loss()
    world.say(1, "b")
    example.await_kept("after the loss of a connection that waited")
    with world.in_a_batch():
        world.terminate()
    example.await_loss()
    example.await_kept("after the loss of one in a transaction")
    if example.is_psql:
        return
    with world.in_a_batch():
        example.send(signal.SIGTERM)
    assert example.wait() == 0
    assert world.is_kept(), "it ended before the batch at hand was done"


def test_it_goes_on_after_a_kill(world: World, example: Example) -> None:
    chance = random.Random(example.name)
    done = 0
    is_stopped = threading.Event()

    def write() -> None:
        nonlocal done
        while not is_stopped.is_set():
            world.do_something(chance)
            done += 1

    example.start()
    world.say(1, "a")
    example.await_kept("what was there")
    with world.in_a_batch():
        example.kill()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        example.start()
        wait_until(world.backends, "it is connected")
        goal = done + chance.randrange(20, 80)
        wait_until(lambda: done > goal, "records are written")
        example.kill()
    finally:
        is_stopped.set()
        writer.join()
    for _ in range(100):
        world.do_something(chance)
    world.restore(1)
    world.say(1, "last")
    example.start()
    example.await_kept("everything")
    world.replay()
    world.say(1, "a", "wakes it up")
    example.await_kept("everything again")
    example.ask_to_end()


def test_psql_shows_a_notification_after_its_next_command(
    world: World, environment: dict[str, str]
) -> None:
    [(listen, shown)] = re.findall(
        r"^```sql listen\n(.*?)^```\n\n```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    psql = subprocess.Popen(
        ["psql", "--no-psqlrc", world.url],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert psql.stdin is not None
    first, second = listen.splitlines()
    psql.stdin.write(f"{first}\n")
    psql.stdin.flush()
    wait_until(lambda: world.backends("query like 'listen%' and state = 'idle'"), "it listens")
    world.say(1, "a")
    output, _ = psql.communicate(f"{second}\n", timeout=PATIENCE_S)
    assert re.search(re.escape(shown.strip()).replace("4242", r"\d+"), output), output
