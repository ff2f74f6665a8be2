"""`standpipe import`: load a repo from a CAR file."""

import dataclasses
from pathlib import Path

import click

from sync.cli.context import (
    database_command,
    json_option,
    open_server,
    prepare_schema,
    readable_file,
    run_async,
)
from sync.cli.output import print_json
from sync.config import Settings
from sync.importer import Imported, KeySource, import_repo


@click.command("import")
@click.argument("file", type=readable_file())
@click.option(
    "--did-document", "document", type=readable_file(), help="Take the key from this DID document."
)
@click.option("--signing-key", metavar="DID_KEY", help="The key: did:key:z… or its z… part.")
@click.option(
    "--unsigned", "is_unsigned", is_flag=True, help="Check no signature; the repo says so."
)
@json_option
@database_command
def import_command(
    settings: Settings,
    *,
    file: Path,
    document: Path | None,
    signing_key: str | None,
    is_unsigned: bool,
    as_json: bool,
) -> None:
    """Load a repo from a CAR file, verified like a download.

    The key that has to have signed it comes from the account's DID document, which is looked up
    unless a file, or the key itself, is given. What is stored already is compared: records that
    the file does not have are deleted. Nothing is written unless all of the file is good.

    Examples:
      standpipe import alice.car
      standpipe import alice.car --did-document alice.json
    """
    if (document is not None) + (signing_key is not None) + is_unsigned > 1:
        raise click.UsageError("--did-document, --signing-key and --unsigned exclude each other.")
    source = KeySource(signing_key=signing_key, document=document, is_unsigned=is_unsigned)
    with open_server(settings, may_create=True) as url:
        prepare_schema(settings, url, may_create=True)
        working = dataclasses.replace(settings, database_url=url)
        imported = run_async(import_repo(working, file, key_source=source))
    if as_json:
        print_json(dataclasses.asdict(imported))
    else:
        click.echo(describe(imported))


def describe(imported: Imported) -> str:
    """Say in one sentence what an import did."""
    return (
        f"{imported.did} is at {imported.rev} ({imported.trust}): {imported.records:,} records in "
        f"the file; {imported.created:,} created, {imported.updated:,} updated, "
        f"{imported.deleted:,} deleted."
    )
