"""Write the manual's page on the command line from `--help`; a test sees when it is stale."""

from typing import Any

import click

from sync.cli.app import cli

WIDTH = 98


def render_reference() -> str:
    """Return the whole page."""
    parts = [
        "# The command line",
        "",
        "Written from `--help` by `make schema`.",
        "",
        *_section("standpipe", cli, None),
    ]
    root = click.Context(cli, info_name="standpipe", **cli.context_settings)
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        parts += _section(f"standpipe {name}", command, root, name=name)
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=root)
            for part, each in command.commands.items():
                parts += _section(f"standpipe {name} {part}", each, context, name=part)
    return "\n".join(parts).rstrip() + "\n"


def _section(
    title: str, command: click.Command, parent: click.Context | None, *, name: str = "standpipe"
) -> list[str]:
    width: dict[str, Any] = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    options = {**command.context_settings, **width}
    context = click.Context(command, info_name=name, parent=parent, **options)
    return [f"## {title}", "", "```text", command.get_help(context).rstrip(), "```", ""]
