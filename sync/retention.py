"""Take the partitions away that the change log has given up.

SQL decides what goes (`sync.maintain()`, `sync.retired_partitions()`); what remains cannot be done
inside a function: DETACH … CONCURRENTLY, which lets readers, writers and dumps go on, and DROP.
Both wait for whoever uses the partition, and DETACH keeps others from making a partition
meanwhile, so every step gives up soon and is tried again later. Each can be broken off or killed
anywhere: what is left is found in the catalog.
"""

import asyncio

import asyncpg

from sync import log
from sync.database import IngestConnection, connect
from sync.errors import DatabaseUnavailable, SchemaError
from sync.roles import OWNER

LOOK_EVERY_S = 2.0
PATIENCE_S = 3.0
RETRY_S = 30.0

_RETIRED = "select name, state from sync.retired_partitions()"
# DETACH would wait for an old transaction that has the log in use (a dump): look first.
_IN_USE = """
    select exists (
      select from pg_catalog.pg_locks l
        join pg_catalog.pg_stat_activity a using (pid)
       where l.locktype = 'relation' and l.relation = 'sync.changes'::regclass
         and l.pid <> pg_backend_pid()
         and a.xact_start < clock_timestamp() - interval '1 second')
"""
_STEPS = {
    "retired": "alter table sync.changes detach partition sync_priv.{name} concurrently",
    "pending": "alter table sync.changes detach partition sync_priv.{name} finalize",
    "detached": "drop table sync_priv.{name}",
}
_GAVE_UP = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)

_log = log.get("retention")


async def retire_forever(conn: IngestConnection, *, url: str) -> None:
    """Take away what the log has given up, as soon as nobody uses it."""
    while True:
        try:
            is_done = await retire_partitions(conn, url=url)
        except (SchemaError, DatabaseUnavailable) as error:
            _log.warning("retired partitions stay", reason=str(error))
            is_done = False
        await asyncio.sleep(LOOK_EVERY_S if is_done else RETRY_S)


async def retire_partitions(conn: IngestConnection, *, url: str) -> bool:
    """Detach and drop what is retired; False when something is in use and has to wait."""
    if not await conn.fetch(_RETIRED):
        return True
    owner = await connect(url, name="standpipe retention", role=OWNER)
    try:
        await owner.execute(f"set statement_timeout = '{PATIENCE_S:.0f}s'")
        while rows := await conn.fetch(_RETIRED):
            name, state = rows[0]
            if state != "detached" and await owner.fetchval(_IN_USE):
                return False
            # The name comes from the catalog and is one of ours: changes_ and digits.
            await owner.execute(_STEPS[state].format(name=name))
            _log.info("the log gave up a partition", partition=name, was=state)
    except _GAVE_UP:
        return False
    finally:
        await owner.close()
    return True
