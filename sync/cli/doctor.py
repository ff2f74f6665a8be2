"""`standpipe doctor`: look for what stops the sync, and say what to do about it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import click
import psycopg

from sync.cli.app import EXIT_FAILED
from sync.cli.context import (
    Session,
    database_command,
    database_name,
    json_option,
    open_server,
)
from sync.cli.findings import Finding, fail, ok, warn
from sync.cli.health import CHECKS, check_disk, check_schema
from sync.cli.output import print_json, printable
from sync.cli.replication import check_replication
from sync.config import Settings
from sync.database import connect_sync, first_line
from sync.errors import DatabaseUnavailable, SchemaError

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@json_option
@database_command
def doctor(settings: Settings, *, as_json: bool) -> None:
    """Check the database and the state of the sync, and say what to do.

    It exits 1 when a check fails; a warning alone does not.

    Example:
      standpipe doctor
    """
    failed = False
    for finding in examine(settings):
        failed = failed or finding.level == "fail"
        if as_json:
            print_json(asdict(finding))
        else:
            _print_finding(finding)
    if failed:
        raise click.exceptions.Exit(EXIT_FAILED)


def examine(settings: Settings) -> Iterator[Finding]:
    """Run the checks in order; what makes the rest pointless ends them."""
    try:
        with open_server(settings) as url, connect_sync(url, name="standpipe doctor") as session:
            session.autocommit = True
            version = session.info.parameter_status("server_version") or "?"
            yield ok("database", f"PostgreSQL {version}, {database_name(settings)}")
            for finding in _run("schema", check_schema, session):
                yield finding
                if finding.level == "fail":
                    return
            for name, check in {**CHECKS, "replication": check_replication}.items():
                yield from _run(name, check, session)
            yield check_disk(session, settings)
    except (DatabaseUnavailable, SchemaError) as error:
        yield fail("database", str(error), "")


def _run(
    name: str, check: Callable[[Session], Iterator[Finding]], session: Session
) -> Iterator[Finding]:
    try:
        yield from check(session)
    except psycopg.errors.InsufficientPrivilege as error:
        yield warn(
            name,
            f"This login may not look: {first_line(error)}.",
            "Use the login of the service, or one that is a member of sync_owner.",
        )


def _print_finding(finding: Finding) -> None:
    level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
    click.echo(f"{level}  {finding.check:<12} {printable(finding.finding)}")
    if finding.advice:
        click.echo(f"{'':<6}{'':<13}{printable(finding.advice)}")
