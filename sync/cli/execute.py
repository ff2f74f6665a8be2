"""`standpipe exec`: run a program with the database at hand."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sync.cli.context import database_command, open_server
from sync.config import Settings
from sync.embedded import find_binaries
from sync.embedded.cluster import DataFolder
from sync.errors import UsageError


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@database_command
def execute(settings: Settings, *, command: tuple[str, ...]) -> int:
    """Run a program with the database at hand, and end as it does.

    It finds STANDPIPE_DATABASE_URL in its environment. The embedded server is started if it does
    not run, stays up as long as the program does, and its own pg_dump, psql and so on come first
    in PATH.

    Examples:
      standpipe exec bash
      standpipe exec sh -c 'psql "$STANDPIPE_DATABASE_URL"'
    """
    with open_server(settings, may_create=True) as url, _ctrl_c_left_to_it():
        environment = os.environ | {"STANDPIPE_DATABASE_URL": url}
        if settings.database_url is None:
            major = DataFolder(settings.data_dir.resolve()).major()
            programs = find_binaries(major=major).folder
            environment["PATH"] = f"{programs}:{os.environ.get('PATH', os.defpath)}"
        try:
            code = subprocess.run(command, env=environment, check=False).returncode
        except OSError as error:
            raise UsageError(f"{command[0]} cannot be run: {error.strerror}.") from error
    return code if code >= 0 else 128 - code


@contextmanager
def _ctrl_c_left_to_it() -> Iterator[None]:
    """Let Ctrl-C end what the program does, not us: a shell goes on after it.

    A handler that does nothing; SIG_IGN would be inherited.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
