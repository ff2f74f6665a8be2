"""Keep `posts` and `post_counts` current with Standpipe's own `Consumer`, record by record."""

import os
import signal
import sys
from contextlib import suppress

from psycopg.types.json import Jsonb

from sync import Change, Consumer
from sync.consumer import Connection
from sync.errors import ConsumerExists

POST = "app.bsky.feed.post"
URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["STANDPIPE_DATABASE_URL"]
POLL_S = float(os.environ.get("POLL_S", "30"))


def apply(conn: Connection, changes: list[Change]) -> None:
    """Apply a batch, in the transaction that has read it."""
    for change in changes:
        # Anybody writes what they like: ->> takes a `text` that is no string, or not there.
        post = {"did": change.did, "rkey": change.rkey, "value": Jsonb(change.value)}
        if change.kind == "create":
            conn.execute("insert into posts values (%(did)s, %(rkey)s, %(value)s ->> 'text')", post)
            conn.execute(
                "insert into post_counts values (%(did)s, 1)"
                " on conflict (did) do update set posts = post_counts.posts + 1",
                post,
            )
        elif change.kind == "update":
            conn.execute(
                "update posts set text = %(value)s ->> 'text'"
                " where (did, rkey) = (%(did)s, %(rkey)s)",
                post,
            )
        elif change.kind == "delete":
            conn.execute("delete from posts where (did, rkey) = (%(did)s, %(rkey)s)", post)
            conn.execute("update post_counts set posts = posts - 1 where did = %(did)s", post)
        elif change.kind == "purge" and change.collection in (None, POST):
            conn.execute("delete from posts where did = coalesce(%(did)s, did)", post)
            conn.execute("delete from post_counts where did = coalesce(%(did)s, did)", post)


consumer = Consumer("posts", URL, poll_s=POLL_S)
with suppress(ConsumerExists):
    consumer.create(collections=[POST])
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: consumer.stop())
consumer.run(apply)
