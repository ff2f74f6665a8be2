"""Identities that went stale are looked up side by side."""

import asyncio
from typing import cast

import pytest

from sync.atproto.identity import DidDocument
from sync.errors import IdentityError
from sync.identities import IdentityKeeper
from sync.maintenance import refresh_identities_forever
from sync.progress import Progress
from sync.resolver import Resolver
from tests.sql.driver import Driver, Event, did

pytestmark = pytest.mark.timeout(60)

SLOW, QUICK = did(1), did(2)


class Directory:
    """Knows nobody, and takes for ever to say so of one."""

    def __init__(self) -> None:
        self.asked = asyncio.Queue[str]()

    async def document(self, name: str, *, max_age_s: float) -> DidDocument:
        """Fail to look a DID up."""
        self.asked.put_nowait(name)
        if name == SLOW:
            await asyncio.Event().wait()
        raise IdentityError("not_found", f"{name}, {max_age_s:g} s")


@pytest.mark.rule("IN-12", "MT-08")
async def test_a_lookup_at_a_crawl_keeps_no_other_waiting(session, ingest):
    service, directory, wake = Driver(session()), Directory(), asyncio.Event()
    service.track(1, 2)
    keeper = IdentityKeeper(await ingest(), resolver=cast("Resolver", directory))
    working = asyncio.create_task(
        refresh_identities_forever(keeper, progress=Progress(), wake=wake)
    )
    try:
        async with asyncio.timeout(20):
            assert {await directory.asked.get(), await directory.asked.get()} == {SLOW, QUICK}
            await asyncio.to_thread(service.apply, Event(QUICK, kind="identity"))
            wake.set()
            assert await directory.asked.get() == QUICK
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
