"""How much memory this process and the service's lanes have had at most, as Linux counts it."""

import os
import re
from pathlib import Path

_PROC = Path("/proc")
_RESET_PEAK = "5"
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)

# More than all honest work of a test takes, less than any bomb.
MAX_GROWTH_MIB = 256


class MemoryWatch:
    """Peak memory since it was started; where /proc does not tell, it knows nothing."""

    def __init__(self) -> None:
        self._start_kib: dict[int, int] = {}

    def start(self) -> None:
        """Count from here on."""
        for pid in _processes():
            self._start_kib[pid] = _number(pid, _RESIDENT)
        if self._start_kib:
            (_PROC / "self/clear_refs").write_text(_RESET_PEAK)

    def grown_mib(self) -> int:
        """Return how much the process has grown that grew most; a new one from nothing."""
        grown = [_number(pid, _PEAK) - self._start_kib.get(pid, 0) for pid in _processes()]
        return max(grown, default=0) >> 10

    def check(self) -> None:
        """Fail when too much was in memory at any moment."""
        grown_mib = self.grown_mib()
        assert grown_mib <= MAX_GROWTH_MIB, f"{grown_mib} MiB more at the peak"


def _processes() -> list[int]:
    """Return this process and its children; none where there is no /proc."""
    own = os.getpid()
    try:
        children = (_PROC / f"{own}/task/{own}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [own, *map(int, children)]


def _number(pid: int, pattern: re.Pattern[str]) -> int:
    """Return a number of a process's status; 0 when it is gone, or has no memory any more."""
    try:
        found = pattern.search((_PROC / f"{pid}/status").read_text())
    except FileNotFoundError:
        return 0
    return int(found[1]) if found else 0
