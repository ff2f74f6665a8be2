"""Build the indexes that views and searches ask for, and drop those that none asks for any more.

SQL decides which (`sync.index_steps()`); what remains cannot be done inside a function: CREATE
INDEX CONCURRENTLY and its opposite, which let everybody read and write meanwhile. They wait for
transactions that are older, and can be broken off or killed anywhere: what is left is found in
the catalog, and made anew.
"""

import asyncio

import asyncpg

from sync import log
from sync.database import IngestConnection, connect
from sync.errors import DatabaseUnavailable, SchemaError
from sync.roles import OWNER
from sync.sessions import reason_of

LOOK_EVERY_S = 2.0
RETRY_S = 30.0

# Fills the statistics that were made; later it happens by itself.
_RECORDS = "sync.stored_records"
_ANALYZE = f"analyze {_RECORDS}"
_STEPS = "select index_name, statement from sync.index_steps()"
# Held by the session: of several services one builds.
_TRY_LOCK = "select pg_try_advisory_lock(7261, 5)"

_log = log.get("indexes")


async def build_indexes_forever(conn: IngestConnection, *, url: str) -> None:
    """Build and drop indexes as views and searches come and go."""
    while True:
        is_done = True
        if await conn.fetch(_STEPS):
            try:
                is_done = await build_indexes(url)
            except (SchemaError, DatabaseUnavailable) as error:
                _log.warning("indexes wait", reason=str(error))
                is_done = False
        await asyncio.sleep(LOOK_EVERY_S if is_done else RETRY_S)


async def build_indexes(url: str) -> bool:
    """Take every step there is; False when one has failed, which stops no other.

    Also False while another service is at it: that may take hours.
    """
    owner = await connect(url, name="standpipe indexes", role=OWNER)
    try:
        if not await owner.fetchval(_TRY_LOCK):
            return False
        failed: set[str] = set()
        is_new = False
        while steps := [row for row in await owner.fetch(_STEPS) if row[0] not in failed]:
            name, statement = steps[0]
            try:
                await owner.execute(statement)
            except asyncpg.PostgresError as error:
                if owner.is_closed():
                    raise
                _log.warning("an index could not be built", index=name, reason=reason_of(error))
                failed.add(name)
            else:
                is_new = is_new or (statement.startswith("create") and _RECORDS in statement)
                _log.info("indexes follow views and searches", index=name)
        if is_new:
            await owner.execute(_ANALYZE)
        return not failed
    finally:
        await owner.close()
