"""The command line: one module a command or a small group, each a thin call of what is below.

`app` finds the commands and turns errors into one sentence and an exit code, `context` brings
settings and the database, `output` prints tables and JSON.
"""

from sync.cli.app import main

__all__ = ["main"]
