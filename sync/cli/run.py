"""`standpipe run`: the service, until it is told to stop."""

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click

from sync import log
from sync.cli.context import choose_settings, database_name, open_server, run_until_stopped
from sync.cli.display import Display
from sync.cli.source import check_source
from sync.config import Settings
from sync.database import connect_sync
from sync.embedded import EmbeddedPostgres
from sync.errors import StandpipeError
from sync.progress import Progress
from sync.roles import INGESTER
from sync.schema import code_revision, database_revision, require_current, upgrade_older
from sync.service import run_service

WATCH_S = 2.0


@click.command()
@click.option(
    "--source",
    "sources",
    metavar="URL",
    multiple=True,
    help="A relay or PDS to read, kept in the database from now on. May repeat.",
)
@click.option(
    "--source-kind",
    type=click.Choice(["relay", "pds"]),
    help="What the --source URLs are. Default: STANDPIPE_RELAY_KIND.",
)
@click.option("--upgrade", "upgrades", is_flag=True, help="Upgrade an older schema first.")
@click.option(
    "--database-url", metavar="URL", help="Work in this PostgreSQL (STANDPIPE_DATABASE_URL)."
)
@click.option(
    "--data-dir",
    metavar="FOLDER",
    help="Work in the embedded PostgreSQL of this folder (STANDPIPE_DATA_DIR).",
)
def run(
    *,
    sources: tuple[str, ...],
    source_kind: str | None,
    upgrades: bool,
    database_url: str | None,
    data_dir: str | None,
) -> None:
    """Fetch and follow what is tracked until Ctrl-C or SIGTERM, then drain and exit 0.

    It reads the sources the database knows; the first time, and without --source, that becomes
    STANDPIPE_RELAY_URL. On a terminal it shows its progress, elsewhere it writes structured logs
    to standard error.

    Examples:
      standpipe run
      standpipe run --source https://pds.example.com --source-kind pds
    """
    settings = choose_settings(database_url=database_url, data_dir=data_dir)
    for source in sources:
        check_source(source, settings)
    is_live = settings.log_format != "json" and sys.stderr.isatty()
    progress = Progress()
    with open_server(settings, may_create=True) as url:
        log.setup(settings.log_format, settings.log_level)
        _prepare(settings, url, upgrades=upgrades or settings.database_url is None)
        chosen = [(source, source_kind or settings.relay_kind) for source in sources]
        if not chosen and not _knows_sources(url):
            chosen = [(settings.relay_url, settings.relay_kind)]
        working = dataclasses.replace(settings, database_url=url)

        async def main(stop: asyncio.Event) -> None:
            log.get("run").info("started", database=database_name(settings))
            async with contextlib.AsyncExitStack() as around:
                if settings.database_url is None:
                    await around.enter_async_context(_kept_alive(settings.data_dir))
                if is_live:
                    display = Display(progress, url, title=database_name(settings))
                    await around.enter_async_context(display)
                    log.setup(settings.log_format, settings.log_level)  # above the display
                await run_service(working, sources=chosen, progress=progress, stop=stop)

        try:
            run_until_stopped(main)
        finally:
            log.setup(settings.log_format, settings.log_level)
        log.get("run").info("stopped", seconds=round(progress.elapsed_s, 1))


@contextlib.asynccontextmanager
async def _kept_alive(data_dir: Path) -> AsyncIterator[None]:
    """Start the embedded server again whenever something has killed it."""
    server = EmbeddedPostgres(data_dir)

    async def watch() -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if server.postmaster_pid is not None:
                continue
            log.get("run").warning("the embedded PostgreSQL is gone and is started again")
            try:
                await asyncio.to_thread(server.revive)
            except (StandpipeError, OSError) as error:
                log.get("run").warning("it does not start", reason=str(error))

    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch())
        yield
        watcher.cancel()


def _prepare(settings: Settings, url: str, *, upgrades: bool) -> None:
    """Bring the schema up to date where that is wanted, else refuse one that does not fit."""
    with connect_sync(url, name="standpipe schema check") as session:
        if not upgrades or database_revision(session) == code_revision():
            require_current(session)
            return
    if upgrade_older(url):  # refuses a newer schema with its own sentence
        log.get("run").info("upgraded", revision=code_revision())


def _knows_sources(url: str) -> bool:
    """Tell whether there are sources; one that an operator paused is not started again."""
    with connect_sync(url, name="standpipe sources", role=INGESTER) as session:
        return session.execute("select 1 from sync.source_status limit 1").fetchone() is not None
