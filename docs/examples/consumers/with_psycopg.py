"""Keep `posts` and `post_counts` current with psycopg, runs of one kind in one go."""

import os
import signal
import sys
import time
from itertools import groupby
from operator import itemgetter

import psycopg
from psycopg.rows import dict_row

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["STANDPIPE_DATABASE_URL"]
POLL_S = int(os.environ.get("POLL_S", "30"))

MAKE = """
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts')
"""
# A purge comes for other collections than ours, too.
READ = """
select kind, did, rkey, value ->> 'text' as text from sync.read_changes('posts')
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post'
"""
IS_AT_REST = "select is_at_rest from sync.consumer_status where name = 'posts'"
APPLY = {
    "create": (
        "insert into posts values (%(did)s, %(rkey)s, %(text)s)",
        """insert into post_counts values (%(did)s, 1)
           on conflict (did) do update set posts = post_counts.posts + 1""",
    ),
    "update": ("update posts set text = %(text)s where (did, rkey) = (%(did)s, %(rkey)s)",),
    "delete": (
        "delete from posts where (did, rkey) = (%(did)s, %(rkey)s)",
        "update post_counts set posts = posts - 1 where did = %(did)s",
    ),
    "purge": (
        "delete from posts where did = coalesce(%(did)s, did)",
        "delete from post_counts where did = coalesce(%(did)s, did)",
    ),
}
signals: list[int] = []


def follow(conn: psycopg.Connection) -> None:
    """Read and apply until a signal; in between wait for NOTIFY."""
    conn.execute("listen sync_changes")
    conn.execute(MAKE)
    while not signals:
        with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
            changes = cursor.execute(READ).fetchall()
            for kind, run in groupby(changes, key=itemgetter("kind")):
                rows = list(run)
                for statement in APPLY.get(kind, ()):
                    cursor.executemany(statement, rows)
        if not changes and conn.execute(IS_AT_REST).fetchone() == (True,):
            for _ in range(POLL_S):  # a second at a time, so that a signal is seen
                if signals or any(conn.notifies(timeout=1, stop_after=1)):
                    break


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: signals.append(number))
while not signals:
    try:
        with psycopg.connect(URL, autocommit=True) as conn:
            follow(conn)
    except psycopg.OperationalError as error:  # lost, or a deadlock: what was read is rolled back
        print(error, file=sys.stderr)
        time.sleep(1)
