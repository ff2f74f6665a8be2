"""One line of `standpipe doctor`."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, how bad it is, and what to do."""

    check: str
    level: Level
    finding: str
    advice: str = ""


def ok(check: str, finding: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, "ok", finding)


def warn(check: str, finding: str, advice: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(check, "warn", finding, advice)


def fail(check: str, finding: str, advice: str) -> Finding:
    """Return a finding that stops the sync."""
    return Finding(check, "fail", finding, advice)


def since(seconds: float) -> str:
    """Write an age in the unit a person would choose."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit} ago"
    return f"{seconds:,.0f} s ago"


def size(count_bytes: int) -> str:
    """Write a number of bytes in the unit a person would choose."""
    amount = float(count_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"
