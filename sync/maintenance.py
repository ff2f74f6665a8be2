"""Work that never ends: upkeep in small steps, and identities that have gone stale."""

import asyncio

from sync.database import IngestConnection
from sync.identities import IdentityKeeper
from sync.progress import Progress
from sync.wakes import wait_for

UPKEEP_IDLE_S = 2.0
IDENTITY_IDLE_S = 0.5

_MAINTAIN = "select sync.maintain()"


async def maintain_forever(conn: IngestConnection) -> None:
    """Call for one bounded step of upkeep after another."""
    while True:
        has_more = await conn.fetchval(_MAINTAIN)
        await asyncio.sleep(0.0 if has_more else UPKEEP_IDLE_S)


async def refresh_identities_forever(
    keeper: IdentityKeeper, *, progress: Progress, wake: asyncio.Event
) -> None:
    """Resolve whatever the stream or an operator marked as stale."""
    while True:
        wake.clear()
        count = await keeper.refresh_some()
        progress.identities_resolved += count
        if not count:
            await wait_for(wake, timeout_s=IDENTITY_IDLE_S)
