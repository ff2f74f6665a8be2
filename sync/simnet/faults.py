"""Honest trouble on request: slow answers, errors, cut bodies, stale exports, held exports.

Each is scripted once and used up by the requests it matches; nothing here tells a lie.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next requests of one method."""

    method: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_after_bytes: int | None = None
    # How many commits an export is behind.
    commits_behind: int = 0
    pds: int | None = None
    did: str | None = None
    times: int = 1

    def matches(self, method: str, pds: int | None, did: str | None) -> bool:
        """Tell whether a request is one of those that are to suffer."""
        return (
            self.times > 0
            and self.method == method
            and self.pds in (None, pds)
            and self.did in (None, did)
        )


class Hold:
    """A getRepo that stops between reading the repo and answering, until it is released."""

    def __init__(self, did: str | None) -> None:
        self.did = did
        self.is_taken = False
        self.arrived = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let the held request go on."""
        self._released.set()

    async def stop_here(self) -> None:
        """Stop the request that is held."""
        self.arrived.set()
        await self._released.wait()


class Faults:
    """The script of what is going to go wrong."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._holds: list[Hold] = []

    def add(self, fault: Fault) -> None:
        """Put a fault at the end of the script."""
        self._faults.append(fault)

    def take(self, method: str, *, pds: int | None = None, did: str | None = None) -> Fault | None:
        """Return the fault that a request is to suffer, and count it."""
        for fault in self._faults:
            if fault.matches(method, pds, did):
                fault.times -= 1
                return fault
        return None

    def hold(self, did: str | None) -> Hold:
        """Hold the next getRepo of a DID (None: of anybody)."""
        hold = Hold(did)
        self._holds.append(hold)
        return hold

    def take_hold(self, did: str) -> Hold | None:
        """Return the hold that a getRepo runs into."""
        for hold in self._holds:
            if not hold.is_taken and hold.did in (None, did):
                hold.is_taken = True
                return hold
        return None

    def clear(self) -> None:
        """Let everything work again, and let every held request go on."""
        for hold in self._holds:
            hold.release()
        self._holds.clear()
        self._faults.clear()
