"""Give the simulated network its time: it always rises, and with a start it never looks outside."""

import datetime as dt
import time

from sync.atproto.syntax import make_tid

# 2025-01-01T00:00:00Z: past for every reader, so no rev is ever "in the future" (CM-16).
DEFAULT_START_US = 1_735_689_600_000_000
_STEP_US = 1_000


class Clock:
    """A logical clock from a fixed start, or (start None) the wall clock made strictly rising."""

    def __init__(self, start_us: int | None = DEFAULT_START_US) -> None:
        self._follows_wall = start_us is None
        self._now_us = 0 if start_us is None else start_us

    def tick(self) -> int:
        """Advance and return the time in microseconds."""
        if self._follows_wall:
            self._now_us = max(self._now_us + 1, time.time_ns() // 1_000)
        else:
            self._now_us += _STEP_US
        return self._now_us

    def tid(self) -> str:
        """Return a TID higher than every one before."""
        return make_tid(self.tick(), 0)

    def datetime(self) -> str:
        """Return the present moment as the protocol writes it."""
        return format_datetime(self.tick())


def format_datetime(time_us: int) -> str:
    """Write microseconds since 1970 as a datetime with milliseconds and a Z."""
    moment = dt.datetime.fromtimestamp(time_us / 1_000_000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
