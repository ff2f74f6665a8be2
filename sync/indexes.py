"""Build the indexes that views ask for, and drop those that no view asks for any more.

SQL decides which (`sync.index_steps()`); what remains cannot be done inside a function: CREATE
INDEX CONCURRENTLY and its opposite, which let everybody read and write meanwhile. They wait for
transactions that are older, and can be broken off or killed anywhere: what is left is found in
the catalog, and made anew.
"""

import asyncio

import asyncpg

from sync import log
from sync.database import IngestConnection, connect
from sync.roles import OWNER
from sync.sessions import reason_of

LOOK_EVERY_S = 2.0
RETRY_S = 30.0

_STEPS = "select index_name, statement from sync.index_steps()"
# Held by the session: of several services one builds.
_TRY_LOCK = "select pg_try_advisory_lock(7261, 5)"

_log = log.get("indexes")


async def build_indexes_forever(conn: IngestConnection, *, url: str) -> None:
    """Build and drop indexes as views come and go."""
    while True:
        pause_s = LOOK_EVERY_S
        if await conn.fetch(_STEPS):
            try:
                await build_indexes(url)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("an index could not be built", reason=reason_of(error))
                pause_s = RETRY_S
        await asyncio.sleep(pause_s)


async def build_indexes(url: str) -> None:
    """Take every step there is, unless somebody else is at it."""
    owner = await connect(url, name="standpipe indexes", role=OWNER)
    try:
        if not await owner.fetchval(_TRY_LOCK):
            return
        while rows := await owner.fetch(_STEPS):
            name, statement = rows[0]
            await owner.execute(statement)
            _log.info("the records' indexes follow the views", index=name)
    finally:
        await owner.close()
