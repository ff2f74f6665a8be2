"""`standpipe search`: find records by what their texts mean."""

from collections.abc import Sequence
from typing import Any

import click
from psycopg.rows import DictRow

from sync.atproto.syntax import is_nsid
from sync.cli.context import (
    database_command,
    explained,
    json_option,
    open_session,
    run_async,
)
from sync.cli.output import print_facts, print_json, print_rows, printable
from sync.config import Settings
from sync.embedder import PLAIN_TEXT, Embedder, full_url
from sync.errors import NoSuchSearch, UsageError

SHOWN_LENGTH = 100

_ENABLE = "select sync.enable_search(%s, %s, %s, %s, %s, %s, %s::real, %s)"
_DISABLE = "select sync.disable_search(%s)"
_LIST = "select * from sync.list_searches()"
_COUNT = "select * from sync.count_texts(%s)"
_FIND = "select * from sync.search(%s, %s::real[], %s)"


class _Words(click.Group):
    """Takes what is no subcommand for words to find."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["find", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Words)
def search() -> None:
    r"""Find records by what their texts mean.

    `standpipe search "words"` is short for `standpipe search find "words"`. A search is over one
    collection; a running service has its texts embedded by a server of your choice. Needs pgvector:
    docs/how-to/search.md.

    Examples:
      standpipe search enable app.bsky.feed.post --text "value->>'text'" \
        --embedder http://127.0.0.1:11434 --model all-minilm
      standpipe search "boats in a storm" --limit 5
    """


@search.command("enable")
@click.argument("nsid")
@click.option("--text", required=True, metavar="SQL", help="What makes a text of a record.")
@click.option("--embedder", required=True, metavar="URL", help="A server with /v1/embeddings.")
@click.option("--model", metavar="NAME", help="The model to ask it for.")
@click.option("--name", help="What to call the search. Default: the end of the NSID.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Embed at most so many texts a second.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 2048),
    default=64,
    show_default=True,
    help="How many texts to send at a time.",
)
@json_option
@database_command
def enable(
    settings: Settings,
    *,
    nsid: str,
    text: str,
    embedder: str,
    model: str | None,
    name: str | None,
    rate: float | None,
    batch: int,
    as_json: bool,
) -> None:
    r"""Make a search over one collection.

    The text is an SQL expression over the record (`value`); a record whose text is null or blank is
    left out, and a long one is cut at 8,000 characters. The embedder is asked once, now, for how
    many numbers it answers with; its URL may end at the host or at /v1.

    Example:
      standpipe search enable app.bsky.feed.post --text "value->>'text'" \
        --embedder https://api.openai.com --model text-embedding-3-small --rate 50
    """
    if not is_nsid(nsid):
        raise UsageError(f"{nsid!r} is no NSID: a search is over one collection.")
    url = full_url(embedder)
    chosen = name or nsid.rpartition(".")[2].lower()
    with explained():
        dimensions = len(run_async(_embed(settings, url, model, PLAIN_TEXT)))
        with open_session(settings, name="search enable", may_create=True) as session:
            session.execute(_ENABLE, [chosen, nsid, text, url, dimensions, model, rate, batch])
    if as_json:
        print_json({"name": chosen, "collection": nsid, "embedder": url, "dimensions": dimensions})
        return
    click.echo(
        f"The search {printable(chosen)} is over {printable(nsid)}, in {dimensions} dimensions; "
        "`standpipe run` has its texts embedded."
    )


@search.command("find")
@click.argument("words")
@click.option("--name", help="Which search, where there are several.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many to show.",
)
@json_option
@database_command
def find(settings: Settings, *, words: str, name: str | None, limit: int, as_json: bool) -> None:
    """Find the records whose texts are nearest to some words, the nearest first.

    The distance is that of the cosine: 0 is the same, 1 has nothing in common.

    Examples:
      standpipe search "boats in a storm"
      standpipe search find "list" --name posts --limit 3 --json
    """
    if not words.strip():
        raise UsageError("There is nothing to find: give some words.")
    with open_session(settings, name="search") as session, explained():
        chosen = _choose(session.execute(_LIST).fetchall(), name)
        asked = _embed(
            settings, chosen["embedder_url"], chosen["model"], words, chosen["dimensions"]
        )
        hits = session.execute(_FIND, [chosen["name"], run_async(asked), limit]).fetchall()
    shown = [
        {
            "distance": f"{hit['distance']:.3f}",
            "uri": hit["uri"],
            "text": _shortened(hit["text"]),
        }
        for hit in hits
    ]
    print_rows(
        hits if as_json else shown,
        as_json=as_json,
        otherwise="Nothing is embedded yet: standpipe search status",
    )


@search.command("list")
@json_option
@database_command
def list_command(settings: Settings, *, as_json: bool) -> None:
    """List the searches, and who embeds their texts.

    Example:
      standpipe search list
    """
    with open_session(settings, name="search list") as session:
        rows = session.execute(_LIST).fetchall()
    columns = ("name", "collection", "embedder_url", "model", "dimensions", "error")
    shown = [{column: row[column] for column in columns} for row in rows]
    print_rows(
        rows if as_json else shown,
        as_json=as_json,
        otherwise="There is no search: standpipe search enable NSID",
    )


@search.command("status")
@click.argument("name", required=False)
@json_option
@database_command
def status(settings: Settings, *, name: str | None, as_json: bool) -> None:
    """Show how many texts of a search have an embedding, wait for one, or were refused.

    Example:
      standpipe search status posts
    """
    with open_session(settings, name="search status") as session, explained():
        chosen = _choose(session.execute(_LIST).fetchall(), name)
        counts = session.execute(_COUNT, [chosen["name"]]).fetchone() or {}
    facts: dict[str, Any] = {**chosen, **counts}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@search.command("disable")
@click.argument("name")
@json_option
@database_command
def disable(settings: Settings, *, name: str, as_json: bool) -> None:
    """Forget a search, with its texts and embeddings; the records stay.

    Example:
      standpipe search disable posts
    """
    with open_session(settings, name="search disable") as session, explained():
        session.execute(_DISABLE, [name])
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"The search {printable(name)} is gone; the records stay.")


async def _embed(
    settings: Settings, url: str, model: str | None, words: str, dimensions: int | None = None
) -> list[float]:
    async with Embedder.from_settings(settings, url, model) as embedder:
        (embedding,) = await embedder.embed([words], dimensions=dimensions)
    return embedding


def _choose(rows: Sequence[DictRow], name: str | None) -> DictRow:
    """Return the search that is meant."""
    names = [row["name"] for row in rows]
    if name is None and len(names) == 1:
        return rows[0]
    if name in names:
        return rows[names.index(name)]
    if not names:
        raise NoSuchSearch("SY602", "There is no search: `standpipe search enable NSID`.")
    told = ", ".join(names)
    if name is None:
        raise UsageError(f"There are several searches, name one: {told}.")
    raise NoSuchSearch("SY602", f"There is no search {printable(name)}, but {told}.")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_LENGTH else line[: SHOWN_LENGTH - 1] + "…"
