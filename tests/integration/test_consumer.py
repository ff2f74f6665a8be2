"""`Consumer` and `AsyncConsumer` against a real server, each test for both."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from sync import AsyncConsumer, Change, Consumer
from sync.errors import (
    ConsumerExists,
    ConsumerOutrun,
    DatabaseUnavailable,
    NoSuchConsumer,
    StandpipeError,
    UsageError,
)
from tests.acceptance.commands import wait_until
from tests.sql.driver import POST, did

Session = psycopg.Connection[DictRow]
Statements = list[tuple[str, Sequence[Any]]]
PATIENCE_S = 60.0
NO_POLL_S = 600.0


def keep(changes: list[Change]) -> Statements:
    """Keep the table `posts` and count what came: a change applied twice shows."""
    statements: Statements = []
    for change in changes:
        if change.kind == "create":
            text = change.value["text"]
            statements.append(("insert into posts values (%s, %s)", [change.rkey, text]))
        elif change.kind == "update":
            text = change.value["text"]
            statements.append(("update posts set text = %s where rkey = %s", [text, change.rkey]))
        elif change.kind == "delete":
            statements.append(("delete from posts where rkey = %s", [change.rkey]))
        elif change.kind == "purge":
            statements.append(("delete from posts", []))
        statements.append(("update seen set n = n + 1", []))
    return statements


class Worker:
    """A consumer of either kind that runs in a thread."""

    def __init__(self, kind: type[Consumer] | type[AsyncConsumer], url: str, **options: Any):
        self.consumer = kind("posts", url, **options)
        self.batches: list[list[Change]] = []
        self.pids: list[int] = []
        self.hook: Callable[[int], object] = lambda _pid: None
        self.work: Callable[[list[Change]], Statements] = keep
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def _told(self, pid: int, changes: list[Change]) -> Statements:
        self.batches.append(changes)
        self.pids.append(pid)
        self.hook(pid)
        return self.work(changes)

    def _apply(self, conn: psycopg.Connection[Any], changes: list[Change]) -> None:
        for query, arguments in self._told(conn.info.backend_pid, changes):
            conn.execute(query.encode(), arguments)

    async def _apply_async(self, conn: psycopg.AsyncConnection[Any], changes: list[Change]) -> None:
        for query, arguments in self._told(conn.info.backend_pid, changes):
            await conn.execute(query.encode(), arguments)

    def run(self, *, follow: bool = False) -> None:
        """Run in this thread."""
        if isinstance(self.consumer, AsyncConsumer):
            asyncio.run(self.consumer.run(self._apply_async, follow=follow))
        else:
            self.consumer.run(self._apply, follow=follow)

    def call(self, method: str, **arguments: Any) -> None:
        """Call create, replay or drop."""
        answer = getattr(self.consumer, method)(**arguments)
        if answer is not None:
            asyncio.run(answer)

    def start(self) -> None:
        """Follow in a thread."""

        def follow() -> None:
            try:
                self.run(follow=True)
            except BaseException as error:  # noqa: BLE001  (the test looks at it)
                self.error = error

        self._thread = threading.Thread(target=follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop, and see that it does."""
        self.consumer.stop()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()


class App:
    """The app's tables, and somebody who writes records by hand."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.execute("create table posts (rkey text primary key, text text)")
        session.execute("create table seen as select 0 as n")
        session.execute("select sync.track_repos(%s)", [[did(1)]])
        session.execute("insert into sync.collections (nsid) values (%s)", [POST])

    def put(self, rkey: str, text: str = "lorem") -> None:
        """Write a record."""
        self.session.execute(
            """
            insert into sync.stored_records (repo_id, collection_id, rkey, cid, rev, value)
            select r.repo_id, c.collection_id, %(rkey)s,
                   '\\x01711220' || sha256(convert_to(%(text)s, 'UTF8')), '3kaaaaaaaaaaa',
                   jsonb_build_object('text', %(text)s::text)
              from sync.repos r, sync.collections c
                on conflict (repo_id, collection_id, rkey) do update
               set cid = excluded.cid, value = excluded.value
            """,
            {"rkey": rkey, "text": text},
        )

    def posts(self) -> dict[str, str]:
        """Return what the consumer has kept."""
        rows = self.session.execute("select rkey, text from posts").fetchall()
        return {row["rkey"]: row["text"] for row in rows}

    def seen(self) -> int:
        """Return how many changes were applied."""
        row = self.session.execute("select n from seen").fetchone()
        assert row is not None
        return int(row["n"])

    def wait_for(self, posts: dict[str, str]) -> None:
        """Wait until the table says so."""
        wait_until(lambda: self.posts() == posts, f"posts are {posts}", timeout_s=PATIENCE_S)


@pytest.fixture
def app(clone: str) -> Iterator[App]:
    """Return the tables of an app beside the schema `sync`."""
    with psycopg.connect(clone, autocommit=True, row_factory=dict_row) as session:
        yield App(session)


@pytest.fixture(params=[Consumer, AsyncConsumer], ids=["sync", "async"])
def worker(request: pytest.FixtureRequest, clone: str, app: App) -> Iterator[Callable[..., Worker]]:
    """Return a function that makes a worker of the consumer `posts`."""
    workers: list[Worker] = []

    def make(url: str = clone, **options: Any) -> Worker:
        made = Worker(request.param, url, **options)
        workers.append(made)
        return made

    yield make
    for each in workers:
        each.stop()


MakeWorker = Callable[..., Worker]


def test_a_batch_and_what_is_made_of_it_commit_together(app: App, worker: MakeWorker) -> None:
    app.put("a")
    app.put("b")
    mine = worker()
    mine.call("create")
    mine.run()
    assert app.posts() == {"a": "lorem", "b": "lorem"}
    app.put("a", "ipsum")
    app.session.execute("delete from sync.stored_records where rkey = 'b'")
    mine.run()
    assert app.posts() == {"a": "ipsum"}
    assert app.seen() == 4
    mine.run()
    assert app.seen() == 4


def test_what_raises_takes_the_reading_back(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")
    mine.work = lambda _changes: [("update seen set n = n + 1", []), ("select 1 / 0", [])]
    with pytest.raises(psycopg.errors.DivisionByZero):
        mine.run()
    assert app.seen() == 0
    mine.work = keep
    mine.run()
    assert app.posts() == {"a": "lorem"}
    assert mine.batches[0] == mine.batches[1]


def test_a_notification_wakes_it(app: App, worker: MakeWorker) -> None:
    mine = worker(poll_s=NO_POLL_S)
    mine.call("create")
    mine.start()
    for n in range(5):
        app.put("a", str(n))
        app.wait_for({"a": str(n)})
    assert app.seen() == 5


def test_it_looks_by_itself_where_notifications_do_not_come(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker(poll_s=0.1)
    mine.call("create")
    mine.work = lambda changes: [*keep(changes), ("unlisten *", [])]
    mine.start()
    app.wait_for({"a": "lorem"})
    app.put("a", "ipsum")
    app.wait_for({"a": "ipsum"})


@pytest.mark.parametrize("moment", ["waiting", "applying"])
def test_a_lost_connection_is_opened_again(app: App, worker: MakeWorker, moment: str) -> None:
    mine = worker(poll_s=NO_POLL_S)
    mine.call("create")
    mine.start()
    app.put("a")
    app.wait_for({"a": "lorem"})
    killed: list[int] = []

    def kill(pid: int) -> None:
        if not killed:
            killed.append(pid)
            app.session.execute("select pg_terminate_backend(%s, 5000)", [pid])

    if moment == "waiting":
        kill(mine.pids[-1])
    else:
        mine.hook = kill
    app.put("a", "ipsum")
    app.wait_for({"a": "ipsum"})
    assert app.seen() == 2
    assert mine.pids[-1] != killed[0]
    assert mine.error is None


def test_a_conflict_is_tried_again(app: App, clone: str, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker(f"{clone}?options=-c%20default_transaction_isolation%3Drepeatable%5C%20read")
    mine.call("create")
    others: list[int] = []

    def interfere(pid: int) -> None:
        if len(others) < 3:
            others.append(pid)
            app.session.execute("update seen set n = n + 10")

    mine.hook = interfere
    mine.run()
    assert app.seen() == 31
    assert set(mine.pids) == set(others), "a conflict needs no other connection"
    assert len(mine.batches) == 4


def test_a_conflict_that_does_not_pass_is_raised(app: App, clone: str, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker(f"{clone}?options=-c%20default_transaction_isolation%3Drepeatable%5C%20read")
    mine.call("create")
    mine.hook = lambda _pid: app.session.execute("update seen set n = n + 10")
    with pytest.raises(psycopg.errors.SerializationFailure):
        mine.run()
    assert len(mine.batches) == 11
    assert app.posts() == {}


def test_stop_lets_the_batch_at_hand_commit(app: App, worker: MakeWorker) -> None:
    for rkey in "abc":
        app.put(rkey)
    mine = worker(max_changes=1)
    mine.call("create")
    mine.hook = lambda _pid: mine.consumer.stop()
    mine.run(follow=True)
    assert app.posts() == {"a": "lorem"}
    mine.hook = lambda _pid: None
    mine.start()
    app.wait_for({"a": "lorem", "b": "lorem", "c": "lorem"})
    mine.stop()
    assert mine.error is None
    assert app.seen() == 3


def test_an_error_that_apply_swallows_cannot_be_taken_for_a_commit(
    app: App, clone: str, request: pytest.FixtureRequest
) -> None:
    app.put("a")
    consumer = Consumer("posts", clone)
    consumer.create()

    def swallow(conn: psycopg.Connection[Any], _changes: list[Change]) -> None:
        with suppress(psycopg.Error):
            conn.execute("select 1 / 0")

    with pytest.raises(StandpipeError, match="went on after a database error"):
        consumer.run(swallow, follow=False)

    def contain(conn: psycopg.Connection[Any], changes: list[Change]) -> None:
        with suppress(psycopg.Error), conn.transaction():
            conn.execute("select 1 / 0")
        for query, arguments in keep(changes):
            conn.execute(query.encode(), arguments)

    consumer.run(contain, follow=False)
    assert app.posts() == {"a": "lorem"}


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_an_apply_that_ends_the_transaction_is_refused(
    app: App, worker: MakeWorker, ending: str
) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")
    mine.work = lambda _changes: [(ending, [])]
    with pytest.raises(StandpipeError, match="has ended the transaction itself"):
        mine.run()
    assert len(mine.batches) == 1


def test_a_rollback_by_exception_ends_the_consumer(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")

    def refuse(_pid: int) -> None:
        raise psycopg.Rollback

    mine.hook = refuse
    with pytest.raises(StandpipeError, match="raised psycopg"):
        mine.run()
    assert len(mine.batches) == 1


def test_an_async_apply_is_not_taken_for_a_done_one(app: App, clone: str) -> None:
    app.put("a")
    consumer = Consumer("posts", clone)
    consumer.create()

    async def apply(_conn: psycopg.Connection[Any], _changes: list[Change]) -> None:
        raise AssertionError("nobody awaits it")

    with pytest.raises(UsageError, match="use AsyncConsumer"):
        consumer.run(apply, follow=False)
    seen: list[Change] = []
    consumer.run(lambda _conn, changes: seen.extend(changes), follow=False)
    assert [change.rkey for change in seen] == ["a"]


def test_the_app_may_choose_its_own_rows(app: App, clone: str) -> None:
    app.put("a")
    consumer = Consumer("posts", clone)
    consumer.create()

    def apply(conn: psycopg.Connection[Any], _changes: list[Change]) -> None:
        conn.row_factory = dict_row
        assert conn.execute("select n from seen").fetchone() == {"n": 0}

    consumer.run(apply, follow=False)


def test_a_stop_before_the_run_counts_once(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")
    mine.consumer.stop()
    mine.run(follow=True)
    assert mine.batches == []
    mine.run()
    assert len(mine.batches) == 1


def test_an_outrun_consumer_starts_over_by_replay(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")
    mine.run()
    app.put("a", "ipsum")
    app.session.execute("update sync_priv.consumer_shards set is_lost = true")
    with pytest.raises(ConsumerOutrun):
        mine.run()
    mine.call("replay")
    mine.run()
    assert app.posts() == {"a": "ipsum"}
    assert [change.kind for change in mine.batches[-1]] == ["purge", "create"]


def test_a_replay_wakes_it(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker(poll_s=NO_POLL_S)
    mine.call("create")
    mine.start()
    app.wait_for({"a": "lorem"})
    mine.call("replay")
    wait_until(lambda: app.seen() == 3, "a purge and a create", timeout_s=PATIENCE_S)


def test_some_of_it_is_replayed(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create", collections=[POST], dids=[did(1)])
    mine.run()
    mine.call("replay", dids=[did(1)], collections=["app.bsky.*"])
    mine.run()
    assert app.seen() == 3
    with pytest.raises(UsageError, match="list of names"):
        mine.call("replay", dids=did(1))


def test_refusals_have_names(app: App, clone: str, worker: MakeWorker) -> None:
    mine = worker()
    with pytest.raises(NoSuchConsumer):
        mine.run()
    mine.call("create", start="now", shards=2)
    with pytest.raises(ConsumerExists):
        mine.call("create")
    mine.call("drop")
    with pytest.raises(NoSuchConsumer):
        mine.call("drop")
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        worker(clone + "_elsewhere").run()


def test_every_shard_has_its_worker(app: App, worker: MakeWorker) -> None:
    app.session.execute("select sync.track_repos(%s)", [[did(n) for n in range(2, 6)]])
    mine = [worker(shard=shard) for shard in range(2)]
    mine[0].call("create", shards=2)
    for each in mine:
        each.work = lambda _changes: []
    app.put("a")
    for each in mine:
        each.run()
    dids = [{change.did for batch in each.batches for change in batch} for each in mine]
    assert len(dids[0] | dids[1]) == 5
    assert not dids[0] & dids[1]


def test_a_change_knows_its_uri_and_its_event(app: App, worker: MakeWorker) -> None:
    app.put("a")
    mine = worker()
    mine.call("create")
    mine.run()
    [change] = mine.batches[0]
    assert change.uri == f"at://{did(1)}/{POST}/a"
    event = change.as_event()
    assert event["position"] == change.position
    assert event["record"]["record"] == {"text": "lorem"}
    mine.call("replay", dids=[did(1)])
    mine.run()
    purge = mine.batches[1][0]
    assert purge.uri is None
    assert purge.as_event()["purge"] == {"did": did(1), "collection": None}
