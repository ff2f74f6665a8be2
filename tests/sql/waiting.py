"""Make one connection wait for another, and see that it does (or does not)."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

import psycopg
from psycopg.rows import DictRow

Session = psycopg.Connection[DictRow]
T = TypeVar("T")
PATIENCE_S = 10.0


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
    pause = Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        row = observer.execute("select pg_blocking_pids(%s) <> '{}' as yes", [pid]).fetchone()
        if row is not None and row["yes"]:
            return
        pause.wait(0.01)
    raise AssertionError(f"backend {pid} waits for nobody")


def wait_until_gone(observer: Session, pid: int) -> None:
    """Return as soon as a backend has ended and let go of everything."""
    pause = Event()
    for _ in range(int(PATIENCE_S / 0.002)):
        there = observer.execute("select from pg_stat_activity where pid = %s", [pid])
        if there.fetchone() is None:
            return
        pause.wait(0.002)
    raise AssertionError(f"backend {pid} does not end")


def impatient(session: Session) -> Session:
    """Make a session fail instead of waiting for a lock."""
    session.execute("set lock_timeout = '2s'")
    if not session.autocommit:
        session.commit()
    return session
