"""The command `standpipe`: find the commands, and turn whatever ends one into an exit code.

A user sees one sentence for anything he can cause; a traceback is a bug of ours.
"""

import contextlib
import errno
import importlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from sync import __version__
from sync.errors import DatabaseRefusal, DatabaseUnavailable, StandpipeError

# In the order of a first hour. Loaded one by one: not every command needs every library.
COMMANDS = {
    "demo": "sync.cli.demo:demo",
    "run": "sync.cli.run:run",
    "upgrade": "sync.cli.upgrade:upgrade_command",
    "track": "sync.cli.track:track",
    "untrack": "sync.cli.track:untrack",
    "resync": "sync.cli.track:resync",
    "source": "sync.cli.source:source",
    "status": "sync.cli.status:status",
    "problems": "sync.cli.problems:problems",
    "tail": "sync.cli.tail:tail",
    "consumer": "sync.cli.consumer:consumer",
    "view": "sync.cli.view:view",
    "projection": "sync.cli.projection:projection",
    "search": "sync.cli.search:search",
    "query": "sync.cli.query:query",
    "verify": "sync.cli.verify:verify",
    "import": "sync.cli.importing:import_command",
    "inspect": "sync.cli.inspecting:inspect_command",
    "exec": "sync.cli.execute:execute",
    "simnet": "sync.cli.simnet:simnet",
    "doctor": "sync.cli.doctor:doctor",
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    not proven, a comparison failed, or anything else went wrong
  2    a wrong option, argument or setting
  3    the database does not answer
  4    the database's schema does not fit this version
  5    a file or an upstream document cannot be used
  6    an upstream server does not answer
  7    the database refused what was asked (the sentence says why)
  130  interrupted (Ctrl-C); 143 ended by SIGTERM; 141 nobody reads the output
"""
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
EXIT_FAILED = 1
# By SQLSTATE, what to do about an answer that stays the same however often one asks.
_REFUSALS: dict[str | None, str] = {
    "42501": "work as a login that may",
    "25006": "work in a database that takes changes",
}
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


class Terminated(BaseException):
    """The process was asked to end; unwinding lets go of the embedded server."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(number)


class _Commands(click.Group):
    """Loads a command when it is used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        parts = command.commands.values() if isinstance(command, click.Group) else ()
        for each in (command, *parts):
            each.help = _keep_lines(each.help or "")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has what it wanted. Nothing may be flushed into the pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        return result


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="standpipe")
def cli() -> None:
    """Sync AT Protocol repos, verified, into your own PostgreSQL.

    Settings are STANDPIPE_* variables or keys of standpipe.toml. Without STANDPIPE_DATABASE_URL
    every command works in an embedded PostgreSQL in ./standpipe-data, and starts it if needed.
    With --json a command prints one JSON object a line.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    _open_streams()
    for number in ENDING_SIGNALS:
        signal.signal(number, _terminate)
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors go to standard error as one sentence."""
    try:
        result = cli.main(
            None if arguments is None else list(arguments),
            prog_name="standpipe",
            standalone_mode=False,
        )
    except click.Abort:  # Ctrl-C, wherever it came
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Terminated as error:
        return error.exit_code
    except Exception as error:
        sentence, exit_code = explain(error)
        if not sentence:
            raise
        _say(sentence)
        return exit_code
    return result if isinstance(result, int) else 0


def explain(error: BaseException) -> tuple[str, int]:
    """Return the sentence and exit code of an error a user can cause, else an empty sentence."""
    for cause in _leaves(error):
        if isinstance(cause, StandpipeError):
            return str(cause), cause.exit_code
        if _is_database_error(cause):
            text = str(cause).strip().splitlines()
            reason = text[0] if text else type(cause).__name__
            if advice := _REFUSALS.get(getattr(cause, "sqlstate", None)):
                return f"PostgreSQL refuses that: {reason}: {advice}.", DatabaseRefusal.exit_code
            return f"The database failed: {reason}", DatabaseUnavailable.exit_code
    for cause in _leaves(error):
        if isinstance(cause, OSError) and cause.strerror:
            where = f"{cause.filename}: " if cause.filename else ""
            hint = " Free some space first." if cause.errno == errno.ENOSPC else ""
            return f"{where}{cause.strerror}.{hint}", EXIT_FAILED
    return "", EXIT_FAILED


def _open_streams() -> None:
    """Have the three streams even where the shell closed one, and lose no text to an encoding.

    A closed descriptor would be given to the next file or socket, which then gets our output.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _keep_lines(text: str) -> str:
    """Have click show a paragraph as it is written when some line of it is indented."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    marked = ("\b\n" + each.removeprefix("\b\n") if "\n  " in each else each for each in paragraphs)
    return "\n\n".join(marked)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Look into the groups in which tasks deliver their errors."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _is_database_error(error: BaseException) -> bool:
    """Tell a driver's error by its name, so that no driver is loaded for this question."""
    return any(
        base.__module__.partition(".")[0] in {"psycopg", "asyncpg"} for base in type(error).__mro__
    )


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"Error: {sentence}", err=True)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)
