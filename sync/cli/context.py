"""What every command starts from: settings, logs, the database, an event loop that can be ended."""

import asyncio
import functools
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import psycopg
from psycopg.rows import DictRow

from sync import log
from sync.cli.app import ENDING_SIGNALS, Terminated
from sync.config import Settings, load_settings
from sync.database import connect_sync, first_line, place, refusals
from sync.embedded import EmbeddedPostgres
from sync.errors import DatabaseRefusal, DatabaseUnavailable, UsageError

CANCEL_TIMEOUT_S = 5.0

R = TypeVar("R")
Session = psycopg.Connection[DictRow]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs, one object a line."
)


def database_command(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command its settings, and options that choose the database."""

    @click.option(
        "--database-url", metavar="URL", help="Work in this PostgreSQL (STANDPIPE_DATABASE_URL)."
    )
    @click.option(
        "--data-dir",
        metavar="FOLDER",
        help="Work in the embedded PostgreSQL of this folder (STANDPIPE_DATA_DIR).",
    )
    @functools.wraps(command)
    def with_settings(database_url: str | None, data_dir: str | None, **options: object) -> R:
        settings = choose_settings(database_url=database_url, data_dir=data_dir)
        log.setup(settings.log_format, "warning")
        return command(settings, **options)

    return with_settings


def choose_settings(*, database_url: str | None = None, data_dir: str | None = None) -> Settings:
    """Read the settings; a folder on the command line means the embedded server there."""
    if database_url is not None and data_dir is not None:
        raise click.UsageError("--database-url and --data-dir exclude each other.")
    overrides = {}
    if database_url is not None:
        overrides["database_url"] = database_url
    if data_dir is not None:
        overrides |= {"data_dir": data_dir, "database_url": ""}
    return load_settings(overrides=overrides)


@contextmanager
def open_server(settings: Settings, *, may_create: bool = False) -> Iterator[str]:
    """Yield the URL of the database; start the embedded server if that is it and it does not run.

    A command that only reads must not make a new data folder: in the wrong folder it should say
    so instead.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    if not may_create and not (settings.data_dir / "cluster").exists():
        raise DatabaseUnavailable(
            f"There is no embedded database in {settings.data_dir} yet: start with "
            "`standpipe run` or `standpipe track`, or set STANDPIPE_DATABASE_URL or "
            "STANDPIPE_DATA_DIR to where it is."
        )
    with EmbeddedPostgres(settings.data_dir) as url:
        yield url


def prepare_schema(settings: Settings, url: str, *, may_create: bool = False) -> None:
    """Refuse a schema that does not fit; in an embedded server it may also be made or migrated."""
    from sync.schema import code_revision, database_revision, require_current, upgrade_older

    with connect_sync(url, name="standpipe schema check") as session:
        try:
            found = database_revision(session)
        except psycopg.errors.InsufficientPrivilege:
            return  # the login of an app: it may read the views, which will say what is missing
        if not may_create or settings.database_url is not None or found == code_revision():
            require_current(session)
            return
    upgrade_older(url)


@contextmanager
def open_session(
    settings: Settings, *, name: str, role: str | None = None, may_create: bool = False
) -> Iterator[Session]:
    """Yield an autocommitting connection to a database whose schema fits."""
    with open_server(settings, may_create=may_create) as url:
        prepare_schema(settings, url, may_create=may_create)
        with connect_sync(url, name=f"standpipe {name}", role=role, autocommit=True) as session:
            try:
                yield session
            except Terminated:
                # PostgreSQL would go on with the statement, and commit it. (After a Ctrl-C psycopg
                # does this.)
                with suppress(psycopg.Error):
                    session.cancel_safe(timeout=CANCEL_TIMEOUT_S)
                raise


def database_name(settings: Settings) -> str:
    """Say which database a command works in, without any password."""
    if settings.database_url is None:
        return f"the embedded database in {settings.data_dir}"
    return f"the database at {place(settings.database_url)}"


def run_until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, R]]) -> R:
    """Run a coroutine whose event is set by the first SIGTERM or Ctrl-C; a second one cuts it."""

    async def supervised() -> R:
        stop = asyncio.Event()
        task = asyncio.ensure_future(main(stop))

        def ask() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (*ENDING_SIGNALS, signal.SIGINT):
            loop.add_signal_handler(number, ask)
        return await task

    try:
        with _handlers_kept():
            return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise click.Abort from None


def run_async(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end; SIGTERM cancels it, so that it unwinds before we exit.

    A handler that raised would do so in the middle of the event loop, which may swallow it.
    """
    received: list[int] = []

    async def supervised() -> R:
        task = asyncio.ensure_future(work)

        def cut(number: int) -> None:
            received.append(number)
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in ENDING_SIGNALS:
            loop.add_signal_handler(number, cut, number)
        return await task

    try:
        with _handlers_kept():
            return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise Terminated(*received[:1] or [signal.SIGTERM]) from None


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put signal handlers back afterwards: an event loop leaves the system's defaults behind."""
    before = {number: signal.getsignal(number) for number in (*ENDING_SIGNALS, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def readable_file() -> click.Path:
    """Return the type of an argument that is a file to read."""
    return click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@contextmanager
def explained() -> Iterator[None]:
    """Have what one of our SQL functions refuses say also why, and what to do."""
    try:
        with refusals():
            yield
    except DatabaseRefusal as error:
        cause = error.__cause__
        parts = [str(error)]
        if isinstance(cause, psycopg.Error):
            parts += filter(None, (cause.diag.message_detail, cause.diag.message_hint))
        raise type(error)(error.sqlstate, " ".join(". ".join(parts).split())) from error
    except psycopg.DataError as error:
        raise UsageError(f"PostgreSQL cannot hold that: {first_line(error)}.") from error
    except UnicodeEncodeError as error:
        raise UsageError("An argument is not UTF-8 text.") from error
