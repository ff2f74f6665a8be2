"""A campaign: which points there are, and a kill before, at and after each of them.

A run in which nobody is killed shows the points. Then each visit is waited for with a trap, while
life goes on; somebody is killed there, and now and then somebody else at once, while everything
recovers; then everything has to be right again.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from tests.acceptance.crash.arena import (
    BACKEND,
    LANE_PROCESS,
    POSTMASTER,
    READER,
    SERVICE,
    VICTIMS,
    Arena,
)
from tests.acceptance.crash.gate import Place, Point, Trap, Visit

ROUND_S = 1.2
TRAP_TIMEOUT_S = 5.0
START_TIMEOUT_S = 8.0
LOOK_S = 0.25
LIVING_TIMEOUT_S = 60.0
ATTEMPTS = 4
# A victim that many of the visits end with; the rest of a postmaster takes longest.
WEIGHTS = {SERVICE: 40, BACKEND: 30, LANE_PROCESS: 14, POSTMASTER: 8, READER: 8}
# What the network does to provoke trouble, and what a kill leaves behind in the counters.
EXPECTED_REASONS = {
    "account_denied",  # a word that came after its PDS had been asked, by whoever was killed
    "bad_signature",  # after a move and a new key, until the document is looked up again
    "chain_break",  # commits are lost on purpose
    "fetch_refused",  # scripted
    "fetch_RepoDeactivated",  # on its way there, and nobody has heard of it yet
    "fetch_RepoTakendown",
    "fetch_bad_signature",
    "fetch_identity_transient",  # scripted
    "identity_transient",
    "sync_differs",  # a #sync after commits that were lost
    "no_key",  # when a lane may not look another identity up yet
    "rev_mismatch",  # the host one moves to announces a head under a rev of its own
}


class Campaign:
    """Kills at the points of one arena, and what came of them."""

    def __init__(self, lab: Arena, seed: int) -> None:
        self.lab = lab
        self.rng = random.Random(seed)
        self.done: set[Visit] = set()
        self.missed: set[Visit] = set()
        self.visits: list[Visit] = []
        self._at_start: set[Visit] = set()

    async def record(self, *, rounds: int) -> None:
        """Let everything happen without a kill, and learn which points there are."""
        lab = self.lab
        await lab.launch()
        await lab.recover()
        started = Counter(lab.gate.seen)
        for _ in range(rounds):
            await lab.round()
            await lab.recover()
        self.visits = sorted(lab.gate.seen)
        self._at_start = {each for each in self.visits if lab.gate.seen[each] == started[each]}

    def choose_victim(self) -> str:
        """Return whom to kill."""
        return self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]

    async def visit(self, visit: Visit, victim: str) -> bool:
        """Kill somebody at one point; false when nobody came by in time."""
        is_start = visit in self._at_start
        for _ in range(ATTEMPTS):
            if is_start:
                await self._strike_unless_dead()
            place, living = await self._lie_in_wait(visit, is_start=is_start)
            if place is not None:
                await self._strike(victim, visit, place)
                self.done.add(visit)
            self.lab.gate.clear()
            await _ended(living)
            await self.lab.ask("select 1")  # on a new connection, where the server was killed
            if place is not None:
                await self.lab.look_at_ruins()
                return True
            is_start = True  # what happens rarely may happen at the start
        self.missed.add(visit)
        return False

    async def _lie_in_wait(
        self, visit: Visit, *, is_start: bool
    ) -> tuple[Place | None, "asyncio.Task[None]"]:
        """Set a trap and let life go on until somebody is caught."""
        lab = self.lab
        self._trap = trap = lab.gate.set_trap(visit)
        await lab.keep_running()
        gives_up = asyncio.Event()
        living = asyncio.create_task(self._live(trap, gives_up))
        left_s = START_TIMEOUT_S if is_start else TRAP_TIMEOUT_S  # of a service that works
        while left_s > 0 and not (trap.sprung.done() or living.done()):
            looked_at = time.monotonic()
            await asyncio.wait([trap.sprung], timeout=LOOK_S)
            if await lab.works():
                left_s -= time.monotonic() - looked_at
        gives_up.set()
        return (trap.sprung.result() if trap.sprung.done() else None), living

    async def _live(self, trap: Trap, gives_up: asyncio.Event) -> None:
        """Let things happen, again when nobody has come by."""
        while not (trap.sprung.done() or gives_up.is_set()):
            await self.lab.keep_running()
            await self.lab.round()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(trap.sprung), ROUND_S)

    async def _strike(self, victim: str, visit: Visit | None, place: Place | None) -> None:
        lab = self.lab
        passes = await lab.strike(victim, visit, place)
        if visit is not None:
            self._trap.release(passes=passes)

    async def _strike_unless_dead(self) -> None:
        """Kill the service wherever it is, so that it has to start."""
        if not self.lab.is_dead:
            await self._strike(SERVICE, None, None)
            await self.lab.look_at_ruins()

    async def run(self, plan: Sequence[tuple[Visit, str]], *, batch: int) -> None:
        """Pay visits; after a few of them everything has to be right again."""
        for number, (visit, victim) in enumerate(plan):
            await self.visit(visit, victim)
            if number % batch == batch - 1 or number == len(plan) - 1:
                await self.lab.recover()

    def late_visits(self) -> list[Visit]:
        """Return what nobody passed by before the first kill: how trouble is dealt with."""
        return sorted(self.lab.gate.seen.keys() - set(self.visits))

    @property
    def victims(self) -> Counter[str]:
        """Return how often who was killed, all sessions as one."""
        counted = Counter[str]()
        for kind, count in self.lab.kills.kinds.items():
            counted[kind if kind in VICTIMS else BACKEND] += count
        return counted

    def summary(self) -> str:
        """Say how many kills of what there were, and which points were reached."""
        lab, points = self.lab, dict[Point, list[str]]()
        for visit in sorted(self.done):
            points.setdefault(visit.point, []).append(visit.moment)
        lines = [
            f"{lab.kills.total} kills (seed {lab.kills.seed}): {_counts(self.victims)}",
            f"{lab.held_at_kills} kills with held commits",
            _counts(lab.kills.kinds),
            f"{len(self.done)} visits of {len(points)} points:",
            *(f"  {point} ({', '.join(moments)})" for point, moments in points.items()),
        ]
        return "\n".join(lines)


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counted.most_common())


async def _ended(living: "asyncio.Task[None]") -> None:
    """Wait until what was begun before the kill is over."""
    await asyncio.wait_for(living, LIVING_TIMEOUT_S)
