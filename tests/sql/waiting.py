"""Make one connection wait for another, and see that it does (or does not)."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import LiteralString, TypeVar

import psycopg
from psycopg.rows import DictRow

Session = psycopg.Connection[DictRow]
T = TypeVar("T")
PATIENCE_S = 10.0
LOOK_EVERY_S = 0.005


@contextmanager
def background(session: Session, work: Callable[[], T]) -> Iterator["Future[T]"]:
    """Run `work` of a session in a thread; at the end it has finished, or is cancelled."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            yield future
        except BaseException:
            session.cancel_safe()
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
    for _ in range(int(PATIENCE_S / LOOK_EVERY_S)):
        if observer.execute(query, [pid]).fetchone() is not None:
            return True
        pause.wait(LOOK_EVERY_S)
    return False


def impatient(session: Session) -> Session:
    """Make a session fail instead of waiting for a lock."""
    session.execute("set lock_timeout = '2s'")
    if not session.autocommit:
        session.commit()
    return session
