"""Work that never ends: upkeep in small steps, and identities that have gone stale."""

import asyncio
from datetime import timedelta

from sync import log
from sync.database import IngestConnection, Plans
from sync.identities import IdentityKeeper
from sync.progress import Progress
from sync.wakes import wait_for

UPKEEP_IDLE_S = 2.0
IDENTITY_IDLE_S = 0.5
LOOKED_UP_AT_ONCE = 64
HOLDER_LOOK_S, HOLDER_RETRY_S = 2.0, 30.0

_MAINTAIN = "select sync.maintain()"
_END_IDLE_HOLDER = "select * from sync.end_idle_holder($1)"
# The login itself, which may end more sessions than the role it works as.
_AS_LOGIN = "set role none"

_log = log.get("upkeep")


async def maintain_forever(conn: IngestConnection) -> None:
    """Call for one bounded step of upkeep after another."""
    plans = Plans(conn)
    while True:
        await plans.renew_if_due()
        has_more = await conn.fetchval(_MAINTAIN)
        await asyncio.sleep(0.0 if has_more else UPKEEP_IDLE_S)


async def end_idle_holders_forever(conn: IngestConnection, *, idle_s: float) -> None:
    """End whoever idles with the change log's lock, for nothing else can commit."""
    await conn.execute(_AS_LOGIN)
    while True:
        holder = await conn.fetchrow(_END_IDLE_HOLDER, timedelta(seconds=idle_s))
        if holder is not None:
            _log.warning("a session idled with the log's lock", **dict(holder))
        is_stuck = holder is not None and holder["outcome"] != "ended"
        await asyncio.sleep(HOLDER_RETRY_S if is_stuck else HOLDER_LOOK_S)


async def refresh_identities_forever(
    keeper: IdentityKeeper, *, progress: Progress, wake: asyncio.Event
) -> None:
    """Resolve whatever the stream or an operator marked as stale.

    Who waits for a web server that answers at a crawl keeps nobody else waiting.
    """
    asked: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            wake.clear()
            lookups = await keeper.claim(LOOKED_UP_AT_ONCE - len(asked))
            for lookup in lookups:
                task = group.create_task(lookup)
                asked.add(task)
                task.add_done_callback(asked.discard)
            progress.identities_resolved += len(lookups)
            if not lookups:
                await wait_for(wake, timeout_s=IDENTITY_IDLE_S)
