"""What the service has done so far, in numbers: written by its parts, read by the display."""

import time
from dataclasses import dataclass, field
from typing import Literal

SourceState = Literal["standby", "connecting", "live", "waiting", "stopped"]


@dataclass(slots=True)
class SourceProgress:
    """One firehose: its connection, its position and what came through it."""

    url: str
    kind: str
    state: SourceState = "connecting"
    seq: int | None = None  # last event read
    durable_seq: int | None = None  # everything at or below it has committed
    frames: int = 0
    frame_bytes: int = 0
    events: int = 0  # verified or not, of repos that are tracked
    last_error: str = ""


@dataclass(slots=True)
class Progress:
    """Counters since the service started."""

    started_at: float = field(default_factory=time.monotonic)
    sources: dict[int, SourceProgress] = field(default_factory=dict)  # by source_id
    tracked_repos: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)  # of sync.apply_events()
    problems: int = 0
    fetches_running: int = 0
    repos_fetched: int = 0
    fetches_failed: int = 0
    fetched_bytes: int = 0
    records_created: int = 0
    records_updated: int = 0
    records_deleted: int = 0
    identities_resolved: int = 0
    gaps_open: int = 0
    is_database_up: bool = True

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the service started."""
        return time.monotonic() - self.started_at

    def count_outcome(self, outcome: str, events: int) -> None:
        """Add events that ended in an outcome (applied, stale, held, …)."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + events
