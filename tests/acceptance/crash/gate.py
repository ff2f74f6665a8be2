"""The points at which somebody can be killed, and the trap that waits at one of them.

A proxy before PostgreSQL and the simulated network tell the gate whatever passes. A trap stops the
first who comes to its point, until the harness has killed somebody and says how it goes on.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

BEFORE, DURING, AFTER = "before", "during", "after"


class Point(NamedTuple):
    """A step of one part of the service, by its connection's name and its SQL; or a request."""

    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part}: {self.what}"


class Visit(NamedTuple):
    """A point, and whether the step has not been asked for yet, was just sent, or is answered."""

    point: Point
    moment: str

    def __str__(self) -> str:
        return f"{self.moment} {self.point}"


class Place(Protocol):
    """Where a trap has sprung."""

    @property
    def backend_pid(self) -> int | None:
        """Return the process that serves this connection, if it is one to PostgreSQL."""

    @property
    def client_port(self) -> int | None:
        """Return the port from which the service's side of it comes."""

    @property
    def did(self) -> str | None:
        """Return the account that is asked about, if there is one."""


@dataclass(slots=True)
class Trap:
    """Stops one visitor; whoever comes later passes."""

    visit: Visit
    sprung: "asyncio.Future[Place]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _passes: "asyncio.Future[bool]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def release(self, *, passes: bool) -> None:
        """Let the visitor go on, or have what he carries thrown away."""
        if not self._passes.done():
            self._passes.set_result(passes)

    async def stop_here(self, place: Place) -> bool:
        """Stop a visitor; tells whether what he carries is to be passed on."""
        if self.sprung.done():
            return True
        self.sprung.set_result(place)
        return await asyncio.shield(self._passes)


class Gate:
    """What has passed so far, and the trap that is set."""

    def __init__(self) -> None:
        self.seen: Counter[Visit] = Counter()
        self._trap: Trap | None = None

    def set_trap(self, visit: Visit) -> Trap:
        """Wait for somebody at a point; there is one trap at a time."""
        self._trap = Trap(visit)
        return self._trap

    def clear(self) -> None:
        """Take the trap away; whoever is caught in it goes on."""
        trap, self._trap = self._trap, None
        if trap is not None:
            trap.release(passes=True)

    def is_awaited(self, point: Point, moment: str) -> bool:
        """Tell whether the trap waits for exactly this."""
        trap = self._trap
        return trap is not None and not trap.sprung.done() and trap.visit == (point, moment)

    async def pass_by(self, point: Point, moment: str, place: Place) -> bool:
        """Count a visit, and stop it if it is the one; False when its bytes are to be dropped."""
        self.seen[Visit(point, moment)] += 1
        trap = self._trap
        if trap is not None and self.is_awaited(point, moment):
            return await trap.stop_here(place)
        return True
