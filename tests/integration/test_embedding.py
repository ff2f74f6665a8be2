"""The service has texts embedded: every one, whatever is killed, slow, wrong or changed meanwhile.

What holds at rest is always the same: the table has the texts of the visible records, each with
the embedding of just that text, but for those that the embedder refuses.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

import sync.embedding
from sync.config import Settings
from sync.database import IngestConnection
from sync.embedder import PLAIN_TEXT, Embedder
from sync.embedding import Database, Embedding, Search, Worker
from sync.progress import Progress
from sync.projections import Projections
from sync.sessions import app_session, keep_working
from tests.embedders import DIMENSIONS, FakeEmbedder, changed, embed, fake_embedder, status
from tests.sql.driver import POST, Driver, Event, Op, did
from tests.sql.readers import Session
from tests.sql.searching import NAME, enable, text_of

pytestmark = pytest.mark.usefixtures("pgvector")

PATIENCE_S = 60.0
BATCH = 4


class Scene:
    """A lane that writes posts, a search over them, an embedder, and services."""

    def __init__(
        self, url: str, open_session: Callable[..., Session], embedder: FakeEmbedder
    ) -> None:
        self.url = url
        self.embedder = embedder
        self.open = open_session
        self.lane = Driver(open_session())
        self.looker = open_session()
        self.version = 10
        self.lane.load(0, {}, at=10, data="tree 10")

    def enable(self, **chosen: Any) -> None:
        enable(self.looker, **{"p_embedder": self.embedder.url, "p_batch": BATCH, **chosen})

    def write(self, *ops: tuple[str, str, str | None]) -> None:
        """Commit operations: (action, rkey, text)."""
        before, self.version = self.version, self.version + 1
        done = self.lane.apply(
            Event(
                did(0),
                rev=self.version,
                since=before,
                before=f"tree {before}",
                data=f"tree {self.version}",
                ops=[
                    Op(action, rkey, None if text is None else json.dumps({"text": text}))
                    for action, rkey, text in ops
                ],
            )
        )
        assert done == {"applied": 1}

    def posts(self, number: int, *, prefix: str = "p") -> None:
        """Commit so many posts."""
        self.write(*(("create", f"{prefix}{n}", f"text {prefix} {n}") for n in range(number)))

    def expected(self) -> dict[str, str | None]:
        rows = self.looker.execute(
            "select rkey, value from sync.records where collection = %s", [POST]
        ).fetchall()
        texts = {row["rkey"]: text_of(row["value"]) for row in rows}
        return {rkey: text for rkey, text in texts.items() if text is not None}

    def is_busy(self, before: int) -> bool:
        """Tell whether there was another request, or nothing is left to ask."""
        return len(self.embedder.requests) > before or self.is_level()

    def rows(self) -> list[dict[str, Any]]:
        return self.looker.execute(
            "select rkey, text, error, embedding::real[] as embedding from sync_search.posts"
        ).fetchall()

    def is_level(self) -> bool:
        """Tell whether every text is there and has an embedding or an error."""
        rows = self.rows()
        if {row["rkey"]: row["text"] for row in rows} != self.expected():
            return False
        return all(row["embedding"] is not None or row["error"] is not None for row in rows)

    async def level(self, *, refused: frozenset[str] = frozenset()) -> None:
        """Wait for that, and see that each embedding is that of its text."""
        await self.until(self.is_level)
        rows = self.rows()
        assert {row["rkey"] for row in rows if row["error"] is not None} == refused
        for row in rows:
            if row["error"] is None:
                assert row["embedding"] == pytest.approx(embed(row["text"]), rel=1e-6), row

    async def until(self, check: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not check():
            assert time.monotonic() < deadline, (self.status(), self.embedder.requests[-5:])
            await asyncio.sleep(0.02)

    def status(self) -> dict[str, Any]:
        row = self.looker.execute("select * from sync.list_searches()").fetchone()
        counts = self.looker.execute("select * from sync.count_texts(%s)", [NAME]).fetchone()
        return {**(row or {}), **(counts or {})}

    @asynccontextmanager
    async def service(self) -> AsyncIterator[None]:
        """Run what keeps texts and what has them embedded."""
        works: list[Callable[[IngestConnection], Awaitable[None]]] = [
            lambda conn: Projections(self.url).run(conn),
            lambda conn: Embedding(self.url, Settings()).run(conn),
        ]
        tasks = [
            asyncio.create_task(keep_working(self.url, f"part {n}", work, progress=Progress()))
            for n, work in enumerate(works)
        ]
        try:
            yield
            assert not any(task.done() for task in tasks), tasks
        finally:
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*tasks, return_exceptions=True)

    def kill_backends(self) -> None:
        """End every session of the services."""
        self.looker.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'standpipe%'"
        )


@pytest.fixture
async def scene(
    clone: str, session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(sync.embedding, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(sync.embedding, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(sync.embedding, "RETRY_MAX_S", 0.05)
    monkeypatch.setattr(sync.embedding, "LOCK_TIMEOUT_S", PATIENCE_S)
    async with fake_embedder() as embedder:
        scene = Scene(clone, session, embedder)
        scene.enable()
        yield scene


async def test_texts_are_embedded_in_batches_once_each(scene: Scene) -> None:
    scene.posts(10)
    async with scene.service():
        await scene.level()
        scene.posts(3, prefix="q")
        await scene.level()
        scene.write(("update", "p1", "another"), ("delete", "p2", None))
        await scene.level()
    assert len(scene.embedder.texts) == len(set(scene.embedder.texts)) == 14
    assert max(map(len, scene.embedder.requests)) == BATCH
    assert (scene.status()["embedded"], scene.status()["error"]) == (12, None)


async def test_a_text_that_changes_while_it_is_embedded_is_embedded_again(scene: Scene) -> None:
    scene.write(("create", "a", "before"), ("create", "b", "gone soon"), ("create", "c", "stays"))
    scene.embedder.is_open.clear()
    async with scene.service():
        await scene.until(lambda: scene.embedder.requests)
        scene.write(("update", "a", "after"), ("delete", "b", None))
        await scene.until(lambda: {row["text"] for row in scene.rows()} == {"after", "stays"})
        scene.embedder.is_open.set()
        await scene.level()
    assert scene.embedder.texts == ["before", "gone soon", "stays", "after"]


async def test_taking_down_while_it_is_embedded_leaves_nothing(scene: Scene) -> None:
    scene.posts(3)
    scene.embedder.is_open.clear()
    async with scene.service():
        await scene.until(lambda: scene.embedder.requests)
        scene.looker.execute("select sync.take_down_repos(%s)", [[did(0)]])
        await scene.until(lambda: scene.rows() == [])
        scene.embedder.is_open.set()
        scene.looker.execute("select sync.restore_repos(%s)", [[did(0)]])
        await scene.level()
    assert len(scene.rows()) == 3


async def test_no_transaction_is_open_while_the_embedder_works(scene: Scene) -> None:
    scene.posts(3)
    scene.embedder.is_open.clear()
    async with scene.service():
        await scene.until(lambda: scene.embedder.requests)
        await scene.until(
            lambda: (
                not scene.looker.execute(
                    "select from pg_stat_activity where datname = current_database()"
                    " and application_name like 'standpipe%' and xact_start is not null"
                ).fetchall()
            )
        )
        scene.looker.execute("truncate sync_search.posts")
        scene.embedder.is_open.set()
        await scene.until(lambda: scene.status()["waiting"] == 0)


@pytest.mark.parametrize("seed", range(3))
async def test_kills_lose_nothing_and_write_nothing_wrong(scene: Scene, seed: int) -> None:
    dice = random.Random(seed)
    scene.posts(30)
    alive = {f"p{n}" for n in range(30)}
    for round_number in range(6):
        async with scene.service():
            for _ in range(4):
                rkey = dice.choice(sorted(alive))
                if dice.random() < 0.3:
                    alive.discard(rkey)
                    scene.write(("delete", rkey, None))
                else:
                    scene.write(("update", rkey, f"text {round_number} {dice.random()}"))
                if dice.random() < 0.5:
                    await scene.until(partial(scene.is_busy, len(scene.embedder.requests)))
                if dice.random() < 0.5:
                    scene.kill_backends()
    async with scene.service():
        await scene.level()


async def test_two_services_embed_every_text_once(scene: Scene) -> None:
    scene.posts(20)
    async with scene.service(), scene.service():
        await scene.level()
    assert len(scene.embedder.texts) == 20


@pytest.mark.parametrize(
    "trouble",
    [
        status(500),
        status(503, retry_after="0"),
        status(429, retry_after="0"),
        status(401),
        changed(lambda data: data[1:]),
        changed(lambda data: [{**item, "embedding": [1.0] * 3} for item in data]),
        changed(lambda data: [{**item, "embedding": [float("nan")] * DIMENSIONS} for item in data]),
    ],
)
async def test_trouble_is_shown_waited_out_and_forgotten(scene: Scene, trouble: Any) -> None:
    scene.posts(6)
    scene.embedder.troubles = [trouble] * 3
    scene.embedder.is_open.clear()
    async with scene.service():
        await scene.until(lambda: scene.embedder.requests)
        scene.embedder.is_open.set()
        await scene.level()
        await scene.until(lambda: scene.status()["error"] is None)
    assert not scene.embedder.troubles


async def test_an_embedder_that_is_down_is_named(scene: Scene) -> None:
    scene.looker.execute("update sync.searches set embedder_url = 'http://127.0.0.1:1/v1'")
    scene.posts(2)
    async with scene.service():
        await scene.until(lambda: "127.0.0.1:1" in str(scene.status()["error"]))
        scene.looker.execute("update sync.searches set embedder_url = %s", [scene.embedder.url])
        await scene.level()
        await scene.until(lambda: scene.status()["error"] is None)


async def test_a_text_that_is_refused_is_left_out_alone(scene: Scene) -> None:
    scene.embedder.refuses = lambda texts: any("bad" in text for text in texts)
    scene.posts(9)
    scene.write(("create", "p30", "bad one"), ("create", "p31", "good"), ("create", "p4b", "bad"))
    async with scene.service():
        await scene.level(refused=frozenset({"p30", "p4b"}))
        assert "too long" in str(scene.status()["refused_for"])
        scene.write(("update", "p30", "better"))
        await scene.level(refused=frozenset({"p4b"}))


async def test_an_embedder_that_refuses_everything_leaves_nothing_out(scene: Scene) -> None:
    """As one does whose model has another name: then no text is the cause."""
    scene.embedder.refuses = lambda texts: True
    scene.posts(5)
    async with scene.service():
        await scene.until(lambda: "400" in str(scene.status()["error"]))
        assert scene.status()["refused"] == 0
        scene.embedder.refuses = lambda texts: False
        await scene.level()


async def test_an_embedder_that_is_mended_between_two_questions_leaves_nothing_out(
    scene: Scene,
) -> None:
    """It refuses everything until it is asked for another text."""
    scene.embedder.refuses = lambda texts: [PLAIN_TEXT] not in scene.embedder.requests
    scene.posts(5)
    async with scene.service():
        await scene.level()
        assert [PLAIN_TEXT] in scene.embedder.requests


async def test_a_text_that_an_embedder_fails_on_keeps_no_other_waiting(scene: Scene) -> None:
    scene.embedder.refusal = 500
    scene.embedder.refuses = lambda texts: any("bad" in text for text in texts)
    scene.posts(6)
    scene.write(("create", "a", "bad one"), ("create", "p3b", "bad"))
    async with scene.service():
        await scene.until(lambda: scene.status()["embedded"] == 6)
        await scene.until(lambda: "500" in str(scene.status()["error"]))
        assert scene.status()["waiting"] == 2
        scene.embedder.refuses = lambda texts: False
        await scene.level()


async def test_a_search_that_cannot_go_on_stops_no_other(scene: Scene) -> None:
    """As when pgvector was dropped, and is there again: its column is gone."""
    scene.enable(p_name="broken")
    scene.looker.execute("alter table sync_search.broken drop column embedding")
    scene.posts(6)
    async with scene.service():
        await scene.level()
        errors = "select name, error from sync.list_searches() where error is not null"
        await scene.until(lambda: scene.looker.execute(errors).fetchall())
        [row] = scene.looker.execute(errors).fetchall()
        assert row["name"] == "broken"
        assert "embedding does not exist" in row["error"]
        scene.looker.execute("select sync.disable_search('broken')")
        scene.enable(p_name="broken")
        await scene.until(lambda: not scene.looker.execute(errors).fetchall())


async def test_a_search_that_is_locked_keeps_no_other_waiting(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one is that goes once its readers have ended their transactions."""
    monkeypatch.setattr(sync.embedding, "LOCK_TIMEOUT_S", 0.05)
    scene.enable(p_name="going")
    scene.posts(6)
    holder = scene.open(autocommit=False)
    holder.execute("select from sync.searches where name = 'going' for update")
    holder.execute("lock table sync_search.going")
    async with scene.service():
        await scene.level()
        scene.posts(2, prefix="later")
        await scene.level()
        holder.rollback()
        going = "select from sync_search.going where embedding is null"
        await scene.until(lambda: not scene.looker.execute(going).fetchall())


async def test_a_search_may_go_while_it_is_embedded(scene: Scene) -> None:
    scene.posts(5)
    scene.embedder.is_open.clear()
    async with scene.service():
        await scene.until(lambda: scene.embedder.requests)
        scene.looker.execute("select sync.disable_search(%s)", [NAME])
        scene.embedder.is_open.set()
        scene.enable()
        await scene.level()


# One worker, with a clock of the test's -----------------------------------------------------------


@asynccontextmanager
async def worker_of(scene: Scene, **chosen: Any) -> AsyncIterator["Timed"]:
    values = {"rate_per_s": None, "batch_size": BATCH, **chosen}
    search = Search(NAME, scene.embedder.url, None, DIMENSIONS, **values)
    embedder = Embedder(search.url, model=None, user_agent="test", timeout_s=PATIENCE_S)
    async with app_session(scene.url, name="worker") as conn, embedder:
        yield Timed(search, Database(conn), embedder)


class Timed:
    """A worker whose pauses take no time, and are counted."""

    def __init__(self, search: Search, database: Database, embedder: Embedder) -> None:
        self.now = 0.0
        self.embedder = embedder
        self.worker = Worker(search, database, embedder, pause=self.pause, clock=lambda: self.now)

    async def pause(self, seconds: float) -> None:
        self.now += seconds


def settle(scene: Scene) -> None:
    while not scene.looker.execute(
        "select from sync.projection_status where is_at_rest"
    ).fetchall():
        scene.looker.execute("select sync.run_projection(%s)", [f"search {NAME}"])


async def test_the_rate_is_kept(scene: Scene) -> None:
    scene.posts(20)
    settle(scene)
    async with worker_of(scene, rate_per_s=2.0) as timed:
        while await timed.worker.step():
            pass
    await scene.level()
    assert timed.now == pytest.approx((20 - 1) / 2.0)


async def test_at_a_low_rate_a_text_is_not_read_long_before_it_is_asked_for(scene: Scene) -> None:
    scene.posts(4)
    settle(scene)
    async with worker_of(scene, rate_per_s=0.1, batch_size=64) as timed:
        assert await timed.worker.step()
        assert (timed.now, scene.embedder.texts) == (0.0, ["text p 0"])
        while await timed.worker.step():
            pass
    assert [len(texts) for texts in scene.embedder.requests] == [1] * 4
    assert timed.now == pytest.approx(30.0)


async def test_it_stays_away_for_as_long_as_it_is_told(scene: Scene) -> None:
    scene.posts(1)
    settle(scene)
    scene.embedder.troubles = [status(429, retry_after="77")]
    async with worker_of(scene) as timed:
        assert await timed.worker.step()
        assert timed.now == 77.0
        assert await timed.worker.step()
    await scene.level()


async def test_one_that_is_slow_is_asked_for_less_at_a_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.posts(8)
    settle(scene)
    async with worker_of(scene) as timed:
        scene.embedder.is_open.clear()
        with monkeypatch.context() as patch:
            patch.setattr(timed.embedder, "_timeout_s", 0.2)
            for _ in range(3):
                await timed.worker.step()
        assert [len(texts) for texts in scene.embedder.requests] == [4, 2, 1]
        scene.embedder.is_open.set()
        while await timed.worker.step():
            pass
        await timed.worker.step()
        while await timed.worker.step():
            pass
    assert [len(texts) for texts in scene.embedder.requests[3:6]] == [1, 2, 4]
    await scene.level()


async def test_rows_that_somebody_has_locked_are_not_waited_for(scene: Scene) -> None:
    scene.posts(2)
    settle(scene)
    holder = scene.open(autocommit=False)
    holder.execute("select from sync_search.posts where rkey = 'p0' for update")
    async with worker_of(scene) as timed:
        assert await timed.worker.step()
        assert scene.status()["embedded"] == 1
        assert not await timed.worker.step()
        assert not await timed.worker.step()  # still locked: there is time to rest
        holder.rollback()
        while not await timed.worker.step():
            pass
    await scene.level()
