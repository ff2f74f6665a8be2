"""Wake-ups between the parts of the service: a notification says that there is work, not whose."""

import asyncio


class Wakes:
    """One event for each part that waits for work."""

    def __init__(self) -> None:
        self.sources = asyncio.Event()
        self.fetches = asyncio.Event()
        self.identities = asyncio.Event()
        self.accounts = asyncio.Event()
        self.gaps = asyncio.Event()
        self.serial = 0  # for the lanes, which look instead of waiting

    def set_all(self, *_: object) -> None:
        """Wake everybody; fit to be a listener of notifications."""
        self.serial += 1
        waits = (self.sources, self.fetches, self.identities, self.accounts, self.gaps)
        for event in waits:
            event.set()


async def wait_for(event: asyncio.Event, *, timeout_s: float) -> None:
    """Wait until an event is set, or for the timeout."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
