"""Keep `posts` and `post_counts` current with `AsyncConsumer`, runs of one kind in one go."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from itertools import groupby

from psycopg.types.json import Jsonb

from sync import AsyncConsumer, Change
from sync.async_consumer import AsyncConnection
from sync.errors import ConsumerExists

POST = "app.bsky.feed.post"
URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["STANDPIPE_DATABASE_URL"]
POLL_S = float(os.environ.get("POLL_S", "30"))

STATEMENTS = {
    "create": (
        "insert into posts values (%(did)s, %(rkey)s, %(value)s ->> 'text')",
        """insert into post_counts values (%(did)s, 1)
           on conflict (did) do update set posts = post_counts.posts + 1""",
    ),
    "update": (
        "update posts set text = %(value)s ->> 'text' where (did, rkey) = (%(did)s, %(rkey)s)",
    ),
    "delete": (
        "delete from posts where (did, rkey) = (%(did)s, %(rkey)s)",
        "update post_counts set posts = posts - 1 where did = %(did)s",
    ),
    "purge": (
        "delete from posts where did = coalesce(%(did)s, did)",
        "delete from post_counts where did = coalesce(%(did)s, did)",
    ),
}


async def apply(conn: AsyncConnection, changes: list[Change]) -> None:
    """Apply a batch, in the transaction that has read it."""
    # A purge comes for other collections than ours, too.
    ours = (each for each in changes if each.kind != "purge" or each.collection in (None, POST))
    for kind, run in groupby(ours, key=lambda each: each.kind):
        posts = [{"did": each.did, "rkey": each.rkey, "value": Jsonb(each.value)} for each in run]
        for statement in STATEMENTS.get(kind, ()):
            await conn.cursor().executemany(statement, posts)


async def main() -> None:
    """Follow until SIGTERM or SIGINT."""
    consumer = AsyncConsumer("posts", URL, poll_s=POLL_S)
    with suppress(ConsumerExists):
        await consumer.create(collections=[POST])
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, consumer.stop)
    await consumer.run(apply)


asyncio.run(main())
