"""Follow the change log from an app, exactly once.

    from sync import Consumer

    def apply(conn, changes):
        for change in changes:
            if change.kind == "create":
                conn.execute("insert into posts ...", [change.did, change.rkey, change.value])
            ...

    Consumer("posts", "postgresql://app@localhost/app").run(apply)

`apply` runs inside a transaction that has read the batch. It returns: the transaction commits, and
that is the acknowledgement. It raises: everything is rolled back, the reading too. So it may be
called again with the same changes, and must keep its hands off what a rollback cannot take back.

In between the consumer waits for NOTIFY `sync_changes`, and looks on its own now and then in case
a pooler between them swallows that. A lost connection is opened again, a serialization failure or
a deadlock is tried again. The rest is `sync.read_changes()`; an app with another driver calls that.
"""

import inspect
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, scalar_row

from sync.changes import Change
from sync.database import app_settings, login_errors, refusals
from sync.errors import DatabaseUnavailable, StandpipeError, UsageError

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Apply: TypeAlias = Callable[[Connection, list[Change]], object]

POLL_S = 10.0
MAX_CHANGES = 100_000
# How long stop() may go unnoticed by one that waits.
GLANCE_S = 0.25
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_MAX_CONFLICTS = 10
_TOLD_LOSSES = (1, 10, 100, 1_000)  # so that one that never ends shows, and fills no log
_CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

READ = "select * from sync.read_changes(%s, %s, %s)"
IS_AT_REST = "select s.is_at_rest from sync.consumer_status s where (s.name, s.shard) = (%s, %s)"
CREATE = """
    select sync.create_consumer(%s, p_collections => %s::text[], p_dids => %s::text[],
                                p_start => %s, p_shards => %s)
"""
REPLAY = "select sync.replay(%s, p_dids => %s::text[], p_collections => %s::text[])"
DROP = "select sync.drop_consumer(%s)"

_log = logging.getLogger("sync.consumer")


class Reader:
    """Who reads, and how it takes failures: what both kinds of consumers have in common."""

    def __init__(
        self,
        name: str,
        url: str | None = None,
        *,
        shard: int = 0,
        max_changes: int = 1000,
        poll_s: float = POLL_S,
    ) -> None:
        """Name a consumer; nothing is connected yet.

        `url` is a PostgreSQL URL or connection string; without one STANDPIPE_DATABASE_URL counts,
        and without that libpq's own variables (PGHOST …). `shard` is which part of a consumer with
        several this worker reads, `max_changes` (1 … 100,000) bounds a batch, `poll_s` is how many
        seconds without a notification make it look by itself.
        """
        self.name = name
        self.shard = shard
        self.max_changes = max_changes
        self.poll_s = poll_s
        self.url = os.environ.get("STANDPIPE_DATABASE_URL", "") if url is None else url
        self.is_stopped = False
        self.conflicts = self.losses = 0

    def stop(self) -> None:
        """Have `run` return after the batch at hand, or at once if it has not begun.

        Safe from signal handlers and threads.
        """
        self.is_stopped = True

    def settings(self) -> dict[str, Any]:
        """Return the parameters of its connections."""
        name = f"standpipe consumer {self.name}"
        return {"autocommit": True, **app_settings(name=name)}

    def pause_after(self, error: Exception, *, is_lost: bool) -> float:
        """Return the seconds until another try, or 0 if none would help."""
        if isinstance(error, _CONFLICTS):
            self.conflicts += 1
            if self.conflicts > _MAX_CONFLICTS:
                return 0
            _log.info("consumer %s: a conflict, the batch is read again: %s", self.name, error)
            failures = self.conflicts
        elif is_lost:
            self.losses += 1
            level = logging.WARNING if self.losses in _TOLD_LOSSES else logging.DEBUG
            _log.log(level, "consumer %s: the database is lost, trying: %s", self.name, error)
            failures = self.losses
        else:
            return 0
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures, 30))
        return longest * random.uniform(0.5, 1)

    def note_success(self) -> None:
        """Forget the failures before this batch."""
        self.conflicts = self.losses = 0

    def check_alive(self, conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Refuse to go on when the transaction is not the one that has read the batch.

        After an error PostgreSQL would roll back without a word, and after a COMMIT or ROLLBACK of
        the app there is nothing left to commit.
        """
        if conn.info.transaction_status != TransactionStatus.INTRANS:
            raise StandpipeError(
                f"The apply function of consumer {self.name} went on after a database error, or "
                "has ended the transaction itself: let errors through, put what may fail into "
                "`with conn.transaction():`, and leave COMMIT and ROLLBACK to the consumer."
            )

    def refuse_rollback(self, error: psycopg.Rollback) -> NoReturn:
        """Refuse what would only end psycopg's block, and have the batch come again for ever."""
        raise StandpipeError(
            f"The apply function of consumer {self.name} raised psycopg.Rollback: raise an error "
            "of your own to stop the consumer."
        ) from error


class Consumer(Reader):
    """A worker of a consumer of the change log; see the module."""

    def run(self, apply: Apply, *, follow: bool = True) -> None:
        """Give `apply` every batch, in its transaction, until stop(); at rest only, if not follow.

        Raises DatabaseUnavailable when the first connection fails, ConsumerOutrun (SY301) when
        only replay() helps, NoSuchConsumer (SY302), and whatever `apply` raises.
        """
        self.note_success()
        conn: Connection | None = self._connect()
        try:
            while not self.is_stopped:
                try:
                    if conn is None or conn.closed:
                        conn = self._connect()
                    is_at_rest = self._turn(conn, apply)
                    self.note_success()
                    if is_at_rest and not follow:
                        return
                    self._wait(conn, self.poll_s if is_at_rest else 0)
                except (psycopg.Error, DatabaseUnavailable) as error:
                    is_lost = conn is None or conn.closed
                    if not (pause := self.pause_after(error, is_lost=is_lost)):
                        raise
                    time.sleep(pause)
        finally:
            self.is_stopped = False
            if conn is not None:
                conn.close()

    def create(
        self,
        *,
        collections: Sequence[str] | None = None,
        dids: Sequence[str] | None = None,
        start: str = "beginning",
        shards: int = 1,
    ) -> None:
        """Make the consumer; it belongs to the role that does.

        `collections` are patterns such as app.bsky.feed.*; None means all, as it does for `dids`.
        `start` is `beginning` (every record there is comes first) or `now`. Raises ConsumerExists.
        """
        self._call(CREATE, as_list(collections), as_list(dids), start, shards)

    def replay(
        self, *, dids: Sequence[str] | None = None, collections: Sequence[str] | None = None
    ) -> None:
        """Have everything delivered again after a purge, or some dids and collections only.

        Everything is also the way back after ConsumerOutrun. Raises NoSuchConsumer, NotTracked.
        """
        self._call(REPLAY, as_list(dids), as_list(collections))

    def drop(self) -> None:
        """Forget the consumer and where it stood. Raises NoSuchConsumer."""
        self._call(DROP)

    def _connect(self) -> Connection:
        with login_errors(self.url):
            conn = psycopg.connect(self.url, **self.settings())
        conn.execute("listen sync_changes")
        return conn

    def _turn(self, conn: Connection, apply: Apply) -> bool:
        """Read and apply one batch; tell whether nothing is left for now."""
        with refusals(), conn.transaction(), conn.cursor(row_factory=class_row(Change)) as cursor:
            cursor.execute(READ, [self.name, self.max_changes, self.shard])
            if changes := cursor.fetchall():
                self._apply(apply, conn, changes)
                self.check_alive(conn)
        if changes:
            return False
        with conn.cursor(row_factory=scalar_row) as cursor:
            cursor.execute(IS_AT_REST, [self.name, self.shard])
            return cursor.fetchone() is not False

    def _apply(self, apply: Apply, conn: Connection, changes: list[Change]) -> None:
        try:
            result = apply(conn, changes)
        except psycopg.Rollback as error:
            self.refuse_rollback(error)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise UsageError(f"The apply function of {self.name} is async: use AsyncConsumer.")

    def _wait(self, conn: Connection, seconds: float) -> None:
        """Wait for a notification; those that came before the last reading are dropped."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            woken = list(conn.notifies(timeout=min(left, GLANCE_S), stop_after=1))
            if woken or self.is_stopped or not left:
                return

    def _call(self, query: str, *arguments: object) -> None:
        with login_errors(self.url):
            conn = psycopg.connect(self.url, **self.settings())
        with conn, refusals():
            conn.execute(query, [self.name, *arguments])


def as_list(values: Sequence[str] | None) -> list[str] | None:
    """Return what psycopg sends as an array; a lone string is a mistake, not a list of letters."""
    if isinstance(values, str):
        raise UsageError(f"{values!r} is one name where a list of names is expected: [{values!r}].")
    return None if values is None else list(values)
