"""Keep `posts` and `post_counts` current with asyncpg, runs of one kind in one go."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from itertools import groupby
from operator import itemgetter

import asyncpg

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["STANDPIPE_DATABASE_URL"]
POLL_S = float(os.environ.get("POLL_S", "30"))

MAKE = """
select sync.create_consumer('posts', p_collections => '{app.bsky.feed.post}')
 where not exists (select from sync.consumer_status where name = 'posts')
"""
# A purge comes for other collections than ours, too.
READ = """
select did, rkey, value ->> 'text', kind from sync.read_changes('posts')
 where kind <> 'purge' or coalesce(collection, 'app.bsky.feed.post') = 'app.bsky.feed.post'
"""
IS_AT_REST = "select is_at_rest from sync.consumer_status where name = 'posts'"
# With how many of did, rkey and text each statement takes.
APPLY = {
    "create": {
        "insert into posts values ($1, $2, $3)": 3,
        """insert into post_counts values ($1, 1)
           on conflict (did) do update set posts = post_counts.posts + 1""": 1,
    },
    "update": {"update posts set text = $3 where (did, rkey) = ($1, $2)": 3},
    "delete": {
        "delete from posts where (did, rkey) = ($1, $2)": 2,
        "update post_counts set posts = posts - 1 where did = $1": 1,
    },
    "purge": {
        "delete from posts where did = coalesce($1, did)": 1,
        "delete from post_counts where did = coalesce($1, did)": 1,
    },
}
# The connection is gone, or the transaction (a deadlock): what was read is rolled back.
LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
)


async def follow(woken: asyncio.Event, signals: list[int]) -> None:
    """Read and apply until a signal; in between wait for NOTIFY."""
    conn = await asyncpg.connect(URL)
    try:
        conn.add_termination_listener(lambda _: woken.set())
        await conn.add_listener("sync_changes", lambda *_: woken.set())
        await conn.execute(MAKE)
        while not signals:
            woken.clear()
            async with conn.transaction():
                changes = await conn.fetch(READ)
                for kind, run in groupby(changes, key=itemgetter("kind")):
                    rows = list(run)
                    for statement, n in APPLY.get(kind, {}).items():
                        await conn.executemany(statement, [row[:n] for row in rows])
            if not changes and await conn.fetchval(IS_AT_REST):
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), POLL_S)
    finally:
        await conn.close()


async def main() -> None:
    """Follow until SIGTERM or SIGINT; a lost connection is made again."""
    woken, signals = asyncio.Event(), list[int]()

    def stop(number: int) -> None:
        signals.append(number)
        woken.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    while not signals:
        try:
            await follow(woken, signals)
        except LOST as error:
            print(error, file=sys.stderr)
            await asyncio.sleep(1)


asyncio.run(main())
