"""The programs in docs/examples/consumers, run as their README says: exactly once, each of them."""

import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from tests.acceptance.commands import clean_environment, wait_until
from tests.acceptance.kept_tables import ACCOUNTS, KEPT, PATIENCE_S, PSQL, Example, Session, World
from tests.network.install import ensure_installed, missing_tool, skip_loudly
from tests.postgres import Server
from tests.sql.driver import LIKE, did

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "consumers"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^\| \[(with_[^]]+)\].*? \| `(.+?)` \| ", README, re.MULTILINE))
NO_POLL_S = 600


@pytest.fixture(scope="module")
def login(postgres: Server) -> Iterator[str]:
    """Return `name:password` of an app's login: a member of sync_reader and of nothing else."""
    postgres.administer(
        sql.SQL("create role app_login login password 'secret'"),
        sql.SQL("grant sync_reader to app_login"),
    )
    yield "app_login:secret"
    postgres.administer(sql.SQL("drop role app_login"))


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
    made = Example(
        request.param, COMMANDS[request.param], world, environment, folder, tmp_path / "program.log"
    )
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
    wait_until(lambda: not world.backends(), "the server lets go of the dead program")
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
