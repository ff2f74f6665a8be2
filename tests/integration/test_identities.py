"""Identities that went stale are looked up side by side."""

import asyncio
from typing import cast

import pytest

from sync.atproto.identity import DidDocument
from sync.errors import IdentityError
from sync.identities import IdentityKeeper
from sync.maintenance import refresh_identities_forever
from sync.progress import Progress
from sync.resolver import Identity, Resolver
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


class Nameless:
    """Knows an account, and not whether its handle is right."""

    def __init__(self, document: DidDocument) -> None:
        self.known = document

    async def resolve(self, _name: str, *, max_age_s: float) -> Identity:
        """Return what is known without its handle."""
        known = self.known
        return Identity(known.did, None, known.pds_url, known.signing_key, -max_age_s)

    def age_s(self, _identity: Identity) -> float:
        """Return that it was looked up right now."""
        return 0.0


@pytest.mark.rule("IN-07", "IN-16")
@pytest.mark.parametrize(
    ("claimed", "stored"), [("a.test", "a.test"), ("b.test", "handle.invalid")]
)
async def test_a_handle_that_nobody_answers_for_holds_while_it_is_claimed(
    session, ingest, claimed, stored
):
    """Given up it may be somebody else's by now."""
    service = Driver(session())
    service.track(1)
    service.locate(1)
    document = DidDocument(SLOW, claimed, "https://pds.test", "did:key:z2")
    keeper = IdentityKeeper(await ingest(), resolver=cast("Resolver", Nameless(document)))
    await keeper.store(document, max_age_s=1.0)
    assert service.value("select handle from sync.repos") == stored
    assert service.value("select signing_key from sync.repos") == "did:key:z2"


@pytest.mark.rule("IN-12", "MT-08")
async def test_a_lookup_at_a_crawl_keeps_no_other_waiting(session, ingest):
    service, directory, wake = Driver(session()), Directory(), asyncio.Event()
    service.track(1, 2)
    keeper = IdentityKeeper(await ingest(), resolver=cast("Resolver", directory))
    working = asyncio.create_task(
        refresh_identities_forever(keeper, progress=Progress(), wake=wake)
    )
    try:
        async with asyncio.timeout(50):
            assert {await directory.asked.get(), await directory.asked.get()} == {SLOW, QUICK}
            await asyncio.to_thread(service.apply, Event(QUICK, kind="identity"))
            while directory.asked.empty():  # the event is held where a lookup has the row locked
                wake.set()
                await asyncio.to_thread(service.apply)
            assert await directory.asked.get() == QUICK
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
