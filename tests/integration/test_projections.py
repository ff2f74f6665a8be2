"""The service keeps tables of apps: woken by commits, each alone, whatever their functions do."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

import sync.projections
from sync.progress import Progress
from sync.projections import Projections
from sync.sessions import keep_working
from tests.postgres import Server
from tests.sql.driver import POST, Driver, Event, Op, did
from tests.sql.projecting import App, app_roles
from tests.sql.readers import Contents, Session

PATIENCE_S = 60.0
GATE = 4712
WAIT = f"perform pg_advisory_xact_lock({GATE})"


@pytest.fixture(scope="module", autouse=True)
def roles(postgres: Server) -> Iterator[None]:
    with app_roles(postgres):
        yield


class Scene:
    """A lane that writes, an app with projections, and services that keep them."""

    def __init__(self, url: str, open_session: Callable[..., Session]) -> None:
        self.url = url
        self.lane = Driver(open_session())
        self.app = App(open_session())
        self.looker = open_session()
        self.version = 10
        self.lane.load(0, {}, at=10, data="tree 10")

    def write(self, rkey: str, action: str = "create") -> None:
        """Commit one record."""
        before, self.version = self.version, self.version + 1
        text = None if action == "delete" else f"text {self.version}"
        done = self.lane.apply(
            Event(
                did(0),
                rev=self.version,
                since=before,
                before=f"tree {before}",
                data=f"tree {self.version}",
                ops=[Op(action, rkey, text)],
            )
        )
        assert done == {"applied": 1}

    def records(self) -> Contents:
        rows = self.looker.execute("select did, collection, rkey, cid from sync.records")
        return {(r["did"], r["collection"], r["rkey"]): r["cid"] for r in rows.fetchall()}

    async def until(self, check: Callable[[], Any], what: str = "") -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not check():
            assert time.monotonic() < deadline, (what, self.statuses())
            await asyncio.sleep(0.02)

    async def level(self, *names: str) -> None:
        """Wait until tables are what the records are."""
        for name in names:
            await self.until(partial(self._is_level, name), name)

    def _is_level(self, name: str) -> bool:
        return self.app.kept(name) == self.records()

    def statuses(self) -> list[dict[str, Any]]:
        return self.looker.execute("select * from sync.projection_status").fetchall()

    def state(self, name: str) -> str:
        return str(self.app.status(name)["state"])

    @asynccontextmanager
    async def service(self) -> AsyncIterator[None]:
        """Run what keeps projections; it ends, whatever it is at."""
        work: Callable[[Any], Awaitable[None]] = Projections(self.url).run
        task = asyncio.create_task(keep_working(self.url, "projections", work, progress=Progress()))
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def scene(clone: str, session: Callable[..., Session], monkeypatch: Any) -> Scene:
    """Return a scene in which nobody looks by himself: only a notification wakes him."""
    monkeypatch.setattr(sync.projections, "LOOK_EVERY_S", 600.0)
    return Scene(clone, session)


async def test_a_commit_wakes_it(scene: Scene) -> None:
    scene.app.make("posts")
    async with scene.service():
        await scene.level("posts")
        for rkey in "abc":
            scene.write(rkey)
            await scene.level("posts")
        scene.write("a", "delete")
        await scene.level("posts")


async def test_projections_come_and_go_while_it_runs(scene: Scene) -> None:
    async with scene.service():
        scene.write("a")
        scene.app.make("posts", [POST])
        await scene.level("posts")
        scene.app.call("pause", "posts")
        scene.app.make("others")
        scene.write("b")
        await scene.level("others")
        assert len(scene.app.kept("posts")) == 1
        scene.app.call("resume", "posts")
        await scene.level("posts")
        scene.app.call("drop", "posts")
        scene.write("c")
        await scene.level("others")
        assert len(scene.app.kept("posts")) == 2


async def test_one_that_is_dropped_is_no_failure(
    scene: Scene, monkeypatch: Any, capsys: Any
) -> None:
    # Its task is woken before anybody has seen that it is gone.
    slow = sync.projections._RUNNING + ", pg_sleep(0.3)"
    monkeypatch.setattr(sync.projections, "_RUNNING", slow)
    async with scene.service():
        scene.app.make("posts")
        scene.app.make("others")
        for rkey in "ab":
            scene.write(rkey)
            await scene.level("others", "posts")
        scene.app.call("drop", "posts")
        for rkey in "cd":
            scene.write(rkey)
            await scene.level("others")
        scene.app.create("posts", adopt=True)
        scene.write("e")
        await scene.level("others", "posts")
    assert "tried again" not in "".join(capsys.readouterr())


async def test_one_that_fails_stops_alone_and_goes_on_after_the_fix(scene: Scene) -> None:
    failing = "if exists (select from unnest(changes) c where c.rkey = 'bad')"
    scene.app.make("posts", before=f"{failing} then raise exception 'no'; end if")
    scene.app.make("others")
    async with scene.service():
        for rkey in ("a", "bad", "c"):
            scene.write(rkey)
        await scene.level("others")
        await scene.until(lambda: scene.state("posts") == "failed")
        assert scene.app.status("posts")["error_key"] == f"at://{did(0)}/{POST}/bad"
        scene.app.define("posts")
        scene.app.call("resume", "posts")
        await scene.level("posts")


async def test_what_may_pass_is_shown_and_tried_again(scene: Scene) -> None:
    scene.app.make("posts", before="raise lock_not_available using message = 'in a while'")
    async with scene.service():
        scene.write("a")
        await scene.until(lambda: "in a while" in str(scene.app.status("posts")["error"]))
        assert scene.state("posts") == "running"
        scene.app.define("posts")
        await scene.level("posts")
        assert scene.app.status("posts")["error"] is None


@pytest.mark.parametrize("how", ["sleeps", "waits for its table"])
async def test_nobody_waits_for_one_that_hangs(scene: Scene, how: str) -> None:
    """Neither the ingest nor other projections, nor whoever ends the service."""
    scene.app.make("posts", before=WAIT)
    scene.app.make("others")
    with scene.looker.transaction():
        if how == "sleeps":
            scene.looker.execute("select pg_advisory_xact_lock(%s)", [GATE])
        else:
            scene.looker.execute("lock table app.posts")
        async with scene.service():
            for rkey in "abcd":
                scene.write(rkey)
                await scene.level("others")
            scene.lane.maintain()
    async with scene.service():
        await scene.level("posts", "others")


async def test_what_a_function_leaves_behind_is_gone_by_the_next_call(scene: Scene) -> None:
    """Each would be an error, or another result, the second time."""
    scene.app.make(
        "posts",
        before="""
          create temporary table pg_temp.left_over ();
          execute 'prepare left_over as select 1';
          if current_setting('work_mem') = '64kB' or current_setting('app.x', true) <> ''
             or exists (select from pg_locks l
                         where l.pid = pg_backend_pid() and l.locktype = 'advisory'
                           and l.objid = 1 and l.objsubid = 1)
          then raise exception 'something was left'; end if;
          perform pg_advisory_lock(1);
          perform set_config('work_mem', '64kB', false), set_config('app.x', 'y', false),
                  set_config('search_path', 'app', false);
          execute 'declare left_over cursor for select 1'
        """,
    )
    async with scene.service():
        for rkey in "abc":
            scene.write(rkey)
            await scene.level("posts")
    assert scene.state("posts") == "running"


async def test_two_services_apply_every_change_once(scene: Scene) -> None:
    scene.app.make("posts", [POST], after="insert into counted select from unnest(changes)")
    scene.app.db.execute("create table app.counted (); grant all on app.counted to painter")
    async with scene.service(), scene.service():
        for number in range(20):
            scene.write(f"{number}")
        await scene.level("posts")
    assert len(scene.looker.execute("select from app.counted").fetchall()) == 20


async def test_more_projections_than_connections_take_turns(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(sync.projections, "AT_ONCE", 2)
    names = [f"posts{number}" for number in range(6)]
    for name in names:
        scene.app.make(name)
    async with scene.service():
        for rkey in "abc":
            scene.write(rkey)
            await scene.level(*names)


async def test_one_that_never_comes_to_rest_lets_others_have_their_turn(
    scene: Scene, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sync.projections, "AT_ONCE", 1)
    monkeypatch.setattr(sync.projections, "TURN_S", 0.1, raising=False)
    busy = "select false from sync.projection_status s where s.name = $1"
    monkeypatch.setattr(sync.projections, "_IS_AT_REST", busy)
    for name in ("posts", "others", "more"):
        scene.app.make(name)
    async with scene.service():
        await scene.level("posts", "others", "more")
        scene.write("a")
        await scene.level("more", "others", "posts")
