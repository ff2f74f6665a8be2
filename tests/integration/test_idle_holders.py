"""The running service, while apps idle in their transactions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sync.simnet import Account, Simnet
from tests.integration.rig import NOTE, Rig, note, rig_on

pytestmark = pytest.mark.timeout(120)

IDLE_S = 1.0


@asynccontextmanager
async def running(clone: str, folder: Path, **settings: Any) -> AsyncIterator[tuple[Rig, Any]]:
    """Run a service that is level with three accounts, beside an app in a transaction."""
    async with Simnet(seed=41) as net, rig_on(net, clone, folder, **settings) as rig:
        accounts = [net.create_account(f"{name}.test") for name in ("a", "b", "c")]
        for account in accounts:
            account.create(NOTE, note("before"))
        await rig.track(*accounts)
        rig.start()
        await rig.level(*accounts)
        app = await asyncpg.connect(clone)
        try:
            transaction = app.transaction()
            await transaction.start()
            yield rig, app
        finally:
            app.terminate()


def accounts_of(rig: Rig) -> list[Account]:
    return list(rig.net.world.accounts.values())


async def test_the_service_ends_whoever_idles_with_the_logs_lock(clone: str, tmp_path: Path):
    async with running(clone, tmp_path, log_lock_idle_s=IDLE_S) as (rig, app):
        one, *others = accounts_of(rig)
        await app.execute("set constraints all immediate")
        await app.execute("select sync.untrack_repos(array[$1])", one.did)
        for account in others:
            account.create(NOTE, note("meanwhile"))
        await rig.level(one, *others)  # the untracking was rolled back

        async def is_counted() -> bool:  # once the session is gone, which lets the others go on
            return "log_lock_ended" in await rig.problems()

        await rig.until(is_counted)
        assert (await rig.problems())["log_lock_ended"] == 1
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await app.fetchval("select 1")
        await rig.stop()
