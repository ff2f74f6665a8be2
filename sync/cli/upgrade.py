"""`standpipe upgrade`: make or migrate the schema, reload its functions."""

import click

from sync.cli.context import database_command, database_name, open_server
from sync.config import Settings
from sync.schema import prepare_roles, upgrade


@click.command("upgrade")
@click.option(
    "--restored",
    is_flag=True,
    help="The database is a file-system copy of another one: begin a new log epoch.",
)
@click.option(
    "--roles-only",
    is_flag=True,
    help="Make the roles, and nothing in the database: a dump is going to be restored into it.",
)
@database_command
def upgrade_command(settings: Settings, *, restored: bool, roles_only: bool) -> None:
    """Bring the database's schema up to date.

    Everything happens in one transaction, and doing it again changes nothing. The first time, the
    login needs CREATEROLE; docs/how-to/own-postgresql.md says how to do without.

    Example:
      STANDPIPE_DATABASE_URL=postgresql://app:secret@db/app standpipe upgrade
    """
    with open_server(settings, may_create=True) as url:
        if roles_only:
            prepare_roles(url)
            click.echo(f"The roles are there for {database_name(settings)}.")
            return
        revision = upgrade(url, restored=restored)
    click.echo(f"{database_name(settings).capitalize()} is at schema revision {revision}.")
