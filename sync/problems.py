"""Count what was refused, by reason, host and account, so that nothing is dropped in silence.

A counter is kept in memory until it is written with the effects it belongs to. Hostile input
can make many of them but not unboundedly many: beyond the cap they are counted without the DID.
"""

from dataclasses import dataclass
from typing import NamedTuple

from sync.database import IngestConnection

MAX_ENTRIES = 2_000
MAX_DETAIL_CHARS = 300
MAX_SAMPLE_BYTES = 4_096

_NOTE = "select sync.note_problems($1, $2, $3, $4, $5, $6)"


class ProblemKey(NamedTuple):
    """What a problem is counted by."""

    reason: str
    host: str
    did: str


@dataclass(slots=True)
class Problem:
    """How often something was refused, with the first example."""

    events: int
    detail: str
    sample: bytes | None


class ProblemLog:
    """Problems that are not written yet."""

    def __init__(self) -> None:
        self._entries: dict[ProblemKey, Problem] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def note(
        self,
        reason: str,
        *,
        host: str = "",
        did: str = "",
        detail: str = "",
        sample: bytes | None = None,
        events: int = 1,
    ) -> None:
        """Count a refusal, or several that are alike."""
        key = ProblemKey(reason, host, did)
        if key not in self._entries and len(self._entries) >= MAX_ENTRIES:
            key = ProblemKey(reason, host, "")
        known = self._entries.get(key)
        if known is not None:
            known.events += events
            return
        cut = None if sample is None else sample[:MAX_SAMPLE_BYTES]
        self._entries[key] = Problem(events, storable(detail)[:MAX_DETAIL_CHARS], cut)

    def take(self) -> "ProblemLog":
        """Hand over what was counted so far and start again at nothing."""
        taken = ProblemLog()
        taken._entries, self._entries = self._entries, {}
        return taken

    def events(self) -> int:
        """Return how many refusals there are in all."""
        return sum(problem.events for problem in self._entries.values())

    async def write(self, conn: IngestConnection) -> None:
        """Append the counters; the caller's transaction decides whether they stay."""
        if not self._entries:
            return
        keys, problems = list(self._entries), list(self._entries.values())
        await conn.execute(
            _NOTE,
            [key.reason for key in keys],
            [key.host for key in keys],
            [key.did for key in keys],
            [problem.detail for problem in problems],
            [problem.events for problem in problems],
            [problem.sample for problem in problems],
        )


def storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
