"""The command `demo`: its folder, its server, its last screen."""

import shlex
import shutil
import time
from pathlib import Path

import click

from sync import log
from sync.cli.app import EXIT_FAILED
from sync.cli.context import run_async
from sync.cli.demo.stage import open_stage
from sync.cli.demo.story import Report, play
from sync.embedded import EmbeddedPostgres
from sync.errors import UsageError
from sync.schema import upgrade

DEFAULT_FOLDER = Path("standpipe-demo")
# What a folder of ours holds; anything else is somebody's files.
_OURS = {"cluster", "cluster.partial", "lock"}

_QUERIES = (
    "select collection, count(*) from sync.records group by 1 order by 2 desc",
    """
    select kind, rkey, is_live, value->>'text' as text from sync.change_log
     where collection = 'com.example.demo.note' order by change_id
    """,
    """
    select handle, count(*) as posts, max(indexed_at) as newest from sync.records
     where collection = 'app.bsky.feed.post' group by 1 order by 2 desc limit 5
    """,
)


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where its database goes; emptied at each run.",
)
def demo(*, folder: Path) -> None:
    """Show the main job on a simulated network: backfill, live commits, resync, proofs.

    The network runs in this process and signs real commits; nothing outside this machine is
    asked. Every claim is compared with the network itself, and the exit code is 1 when one does
    not hold.

    Example:
      standpipe demo
    """
    log.setup("console", "error")
    started_at = time.monotonic()
    empty_folder(folder)
    report = Report(say=click.echo)
    with EmbeddedPostgres(folder) as url:
        upgrade(url)
        click.echo(f"PostgreSQL runs in {folder} ({time.monotonic() - started_at:.1f} s)")
        run_async(_play(folder, url, report))
    show_screen(report, folder, seconds=time.monotonic() - started_at)
    if report.failures:
        raise click.exceptions.Exit(EXIT_FAILED)


async def _play(folder: Path, url: str, report: Report) -> None:
    async with open_stage(folder, url) as stage:
        await play(stage, report)


def empty_folder(folder: Path) -> None:
    """Remove what an earlier demo left, and only that."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: choose another one with --folder.")
    names = {path.name for path in folder.iterdir()}
    if names and not names & _OURS:
        raise UsageError(f"{folder} holds other files: choose a new one with --folder.")
    leftover = EmbeddedPostgres(folder)
    if leftover.postmaster_pid is not None:
        with leftover:
            pass  # a demo that was killed left it running; its last user stops it
        if leftover.postmaster_pid is not None:
            raise UsageError(
                f"The database in {folder} is in use: end the other demo or query first."
            )
    shutil.rmtree(folder)


def show_screen(report: Report, folder: Path, *, seconds: float) -> None:
    """Show what was done and what to try next."""
    rule = "─" * 78
    click.echo(f"\n{rule}")
    for name, text in report.lines:
        click.echo(f"  {name:<12} {text}")
    click.echo(rule)
    if report.failures:
        click.echo(f"{len(report.failures)} of the claims did NOT hold:")
        for claim in report.failures:
            click.echo(f"  {claim}")
        return
    click.echo(f"Everything held, in {seconds:.0f} s. The database is in {folder}; ask it:\n")
    program = ".venv/bin/standpipe" if Path(".venv/bin/standpipe").exists() else "standpipe"
    for query in _QUERIES:
        line = " ".join(query.split())
        click.echo(f'{program} query --data-dir {shlex.quote(str(folder))} "{line}"')
