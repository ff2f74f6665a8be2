"""Make one connection wait for another, and see that it does (or does not)."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import LiteralString, TypeVar
from unittest.mock import patch

import psycopg
from psycopg.rows import DictRow

Session = psycopg.Connection[DictRow]
T = TypeVar("T")
# No test is about these: a busy machine may stand still for ten seconds.
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.005
CANCEL_EVERY_S = 0.1


@contextmanager
def background(session: Session, work: Callable[[], T]) -> Iterator["Future[T]"]:
    """Run `work` of a session in a thread; at the end it has finished, or is cancelled."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            yield future
            assert future in wait([future], PATIENCE_S).done, "the work comes to no end"
        except BaseException:
            # What is between two statements just now begins the next one, and waits in it.
            while not future.done():
                session.cancel_safe()
                wait([future], CANCEL_EVERY_S)
            raise


def wait_until_blocked(observer: Session, waiting: Session) -> None:
    """Return as soon as `waiting` waits for a lock."""
    pid = waiting.info.backend_pid
    if not _comes(observer, "select where pg_blocking_pids(%s) <> '{}'", pid):
        raise AssertionError(f"backend {pid} waits for nobody")


def wait_until_blocking(observer: Session, holding: Session) -> None:
    """Return as soon as somebody waits for a lock of `holding`."""
    pid = holding.info.backend_pid
    waiting = "select from pg_stat_activity a where %s = any (pg_blocking_pids(a.pid))"
    if not _comes(observer, waiting, pid):
        raise AssertionError(f"nobody waits for backend {pid}")


def wait_until_gone(observer: Session, pid: int) -> None:
    """Return as soon as a backend has ended and let go of everything."""
    gone = "select where not exists (select from pg_stat_activity a where a.pid = %s)"
    if not _comes(observer, gone, pid):
        raise AssertionError(f"backend {pid} does not end")


def _comes(observer: Session, query: LiteralString, pid: int) -> bool:
    """Ask until there is a row, or for too long."""
    pause = Event()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        # Within a transaction it would see who was there when it first looked.
        observer.execute("select pg_stat_clear_snapshot()")
        if observer.execute(query, [pid]).fetchone() is not None:
            return True
        pause.wait(LOOK_EVERY_S)
    return False


def patient_retention() -> AbstractContextManager[object]:
    """Let what takes retired partitions away go on when a busy machine keeps it for seconds."""
    return patch("sync.retention.PATIENCE_S", PATIENCE_S)


def impatient(session: Session) -> Session:
    """Make a session fail instead of waiting for a lock."""
    session.execute("set lock_timeout = '2s'")
    if not session.autocommit:
        session.commit()
    return session
